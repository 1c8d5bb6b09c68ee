"""A model of the ECP5's block RAM, whose own one in Yosys is empty: for netlists in a simulator.

Widths, byte enables and the order of bits are those of Yosys's `lattice/brams_map_16kd.v`. A word
of 36 bits is written through the first port and read through the second one, but the register of
its low half has the first port's clock and enable, as nobody says that it has the second one's.
What is read while the other port writes it is unknown.
"""

SIDES = "AB"
INITS = [f"INITVAL_{k:02X}" for k in range(64)]


def bus(name: str, bits: int) -> str:
    """All pins of a name as one value."""
    return f"{{{', '.join(f'{name}{k}' for k in reversed(range(bits)))}}}"


COMMON = f"""
  // The place of a bit in 1,024 words of 18; the ninth bit of a byte is none of a narrow word's.
  function [14:0] place(input integer width, input [13:0] address);
    case (width)
      1: place = 18 * address[13:4] + 9 * address[3] + address[2:0];
      2: place = 18 * address[13:4] + 9 * address[3] + 2 * address[2:1];
      4: place = 18 * address[13:4] + 9 * address[3] + 4 * address[2];
      9: place = 18 * address[13:4] + 9 * address[3];
      18: place = 18 * address[13:4];
      default: place = 36 * address[13:5];
    endcase
  endfunction
  reg memory [0:18431];
  wire [20479:0] init = {{{', '.join(reversed(INITS))}}};
  integer n;
  initial for (n = 0; n < 18432; n = n + 1) memory[n] = init[n / 18 * 20 + n % 18];
  localparam WIDE = DATA_WIDTH_A == 36;
  reg [35:0] read_A = 0, read_B = 0;
  wire [17:0] {', '.join(f'DI{side} = {bus("DI" + side, 18)}' for side in SIDES)};
  wire [35:0] data_A = {{DIB, DIA}}, data_B = DIB;
"""

SIDE = """
  wire [13:0] address_{S} = {address};
  wire [14:0] place_{S} = place(DATA_WIDTH_{S}, address_{S});
  wire write_{S} = CE{S} && WE{S};
  reg [35:0] enable_{S};
  always @* case (DATA_WIDTH_{S})
    18: enable_{S} = {{{{9{{address_{S}[1]}}}}, {{9{{address_{S}[0]}}}}}};
    36: enable_{S} = {{{{9{{address_{S}[3]}}}}, {{9{{address_{S}[2]}}}},
                      {{9{{address_{S}[1]}}}}, {{9{{address_{S}[0]}}}}}};
    default: enable_{S} = ~36'b0;
  endcase
  integer i_{S};
  always @(posedge CLK{S}) begin
    if (RST{S}) read_{S} <= 0;
    else if (CE{S})
      for (i_{S} = 0; i_{S} < DATA_WIDTH_{S}; i_{S} = i_{S} + 1)
        if (write_{T} && place_{S} + i_{S} >= place_{T}
            && place_{S} + i_{S} < place_{T} + DATA_WIDTH_{T}
            && enable_{T}[place_{S} + i_{S} - place_{T}]) read_{S}[i_{S}] <= 1'bx;
        else if (!WE{S} || WRITEMODE_{S} == "READBEFOREWRITE")
          read_{S}[i_{S}] <= memory[place_{S} + i_{S}];
        else if (WRITEMODE_{S} == "WRITETHROUGH")
          read_{S}[i_{S}] <= enable_{S}[i_{S}] ? data_{S}[i_{S}] : memory[place_{S} + i_{S}];
    if (write_{S})
      for (i_{S} = 0; i_{S} < DATA_WIDTH_{S}; i_{S} = i_{S} + 1)
        if (enable_{S}[i_{S}]) memory[place_{S} + i_{S}] <= data_{S}[i_{S}];
  end
  reg [17:0] register_{S} = 0;
  wire [17:0] found_{S} = {found};
  always @(posedge CLK{S})
    if (RST{S}) register_{S} <= 0;
    else if (OCE{S}) register_{S} <= found_{S};
  assign {outputs} = REGMODE_{S} == "OUTREG" ? register_{S} : found_{S};
"""


def model() -> str:
    """Verilog of the module DP16KD."""
    parameters = [
        *(f"{name}_{side} = {value}" for side in SIDES for name, value in (
            ("DATA_WIDTH", 18), ("REGMODE", '"NOREG"'), ("WRITEMODE", '"NORMAL"'),
            ("CSDECODE", '"0b000"'))),
        *(f'CLK{side}MUX = "CLK{side}"' for side in SIDES),
        'RESETMODE = "SYNC"', 'ASYNC_RESET_RELEASE = "SYNC"', 'GSR = "AUTO"',
        *(f"{name} = 320'b0" for name in INITS)]
    pins = {"AD": 14, "DI": 18, "DO": 18, "CS": 3}
    ports = [f"input {name}{side}" for name in ("CLK", "CE", "OCE", "WE", "RST") for side in SIDES]
    ports += [f"{'output' if name == 'DO' else 'input'} {name}{side}{k}"
              for name, bits in pins.items() for side in SIDES for k in range(bits)]
    found = {"A": "WIDE && DATA_WIDTH_B == 36 ? read_B[17:0] : read_A[17:0]",
             "B": "WIDE && DATA_WIDTH_B == 36 ? read_B[35:18] : read_B[17:0]"}
    sides = [SIDE.format(S=side, T=other, found=found[side], address=bus(f"AD{side}", 14),
                         outputs=bus(f"DO{side}", 18)) for side, other in ("AB", "BA")]
    return (f"module DP16KD #(parameter {', '.join(parameters)})\n  ({', '.join(ports)});\n"
            f"{COMMON}{''.join(sides)}endmodule\n")
