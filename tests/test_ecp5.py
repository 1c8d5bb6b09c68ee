"""LUT sites of an ECP5 against those of nextpnr-ecp5 0.11, noted here once.

Without its drivers of constants, one LUT or two, which a design has once.
"""

import pytest

from hw.ecp5 import logic_sites
from tests.mapped import counted

ADD = '#(.INIT0(16\'h96aa), .INIT1(16\'h96aa), .INJECT1_0("NO"), .INJECT1_1("NO"))'
TIED = ".C0(1'b1), .D0(1'b1), .C1(1'b1), .D1(1'b1)"
SITES = {
    "delays": (0, "input d, output reg q); reg [6:0] s; always @(posedge clk) {q, s} <= {s, d};"),
    "luts": (4, """input [7:0] a, output reg q, output y); assign y = ^a[2:0];
                   always @(posedge clk) q <= ^a;"""),
    "seven bits": (12, "input [6:0] a, b, output [6:0] y); assign y = a + b;"),
    "eight bits": (12, "input [7:0] a, b, output [7:0] y); assign y = a + b;"),
    "carry out": (14, "input [7:0] a, b, output [8:0] y); assign y = a + b;"),
    "counter": (13, """input en, output reg [7:0] q);
                    always @(posedge clk) if (en) q <= q + 1;"""),
    "comparison": (13, "input [7:0] a, b, output y); assign y = a < b;"),
    "two chains": (23, """input [7:0] a, b, output [7:0] y, output z); assign y = a - b;
        assign z = a[6:0] < b[6:0];"""),
    "a carry with a load on its way": (10, f"""input [3:0] a, output [3:0] s, output y);
        wire last;
        CCU2C {ADD} first(.CIN(1'b0), .A0(a[0]), .B0(a[1]), .A1(a[2]), .B1(a[3]), {TIED},
                    .S0(s[0]), .S1(s[1]), .COUT(y));
        CCU2C {ADD} second(.CIN(y), .A0(a[1]), .B0(a[2]), .A1(a[3]), .B1(a[0]), {TIED},
                     .S0(s[2]), .S1(s[3]), .COUT(last));"""),
    "distributed RAM": (12, """input we, input [3:0] a, w, input [5:0] d, output reg [5:0] q);
        reg [5:0] m [0:15];
        always @(posedge clk) begin if (we) m[w] <= d; q <= m[a]; end"""),
}


@pytest.mark.slow
def test_small_modules(tmp_path):
    assert counted(tmp_path, logic_sites, "synth_ecp5 -nodsp -abc9 -nowidelut", SITES) == {
        name: sites for name, (sites, _) in SITES.items()}
