"""Logic cells against those of nextpnr-ice40 0.11, which were noted here once."""

import pytest

from export.config import load_config
from export.file import load_network
from hw.devices import DEVICES
from hw.generate import generate
from hw.ice40 import logic_cells
from hw.synth import map_netlist, sizes
from tests.mapped import counted

# Each has one cell that drives a one, and most have one that drives a zero.
CELLS = {
    "delays": (9, "input d, output reg q); reg [6:0] s; always @(posedge clk) {q, s} <= {s, d};"),
    "lut and register": (2, "input [3:0] a, output reg q); always @(posedge clk) q <= ^a;"),
    "lut with two loads": (3, """input [3:0] a, output reg q, output y); assign y = ^a;
                               always @(posedge clk) q <= y;"""),
    "counter": (11, """input en, output reg [7:0] q);
                    always @(posedge clk) if (en) q <= q + 1;"""),
    "comparison": (11, "input [7:0] a, b, output y); assign y = a < b;"),
    "comparison of luts": (19, "input [7:0] a, b, m, output y); assign y = (a & m) < b;"),
    "lut of two into carry": (4, """input [3:0] a, b, output y); wire n = a[2] & a[3];
        SB_CARRY carry(.CI(1'b0), .I0(n), .I1(b[1]), .CO(y));"""),
    "lut of four into carry": (5, """input [3:0] a, b, output y); wire n = a == 4'b1001;
        SB_CARRY carry(.CI(1'b0), .I0(n), .I1(b[1]), .CO(y));"""),
    "register into carry": (5, """input [3:0] a, b, output y); reg n;
        always @(posedge clk) n <= a[2] & a[3];
        SB_CARRY carry(.CI(1'b0), .I0(n), .I1(b[1]), .CO(y));"""),
    "carry with loads on its way": (6, """input [2:0] a, b, output [1:0] y);
        SB_CARRY first(.CI(1'b0), .I0(a[0]), .I1(b[0]), .CO(y[0]));
        SB_CARRY second(.CI(y[0]), .I0(a[1]), .I1(b[1]), .CO(y[1]));"""),
    "carry in": (11, "input [7:0] a, b, input c, output [7:0] y); assign y = a + b + c;"),
    "carry into register": (12, """input [7:0] a, output reg [7:0] q, output reg c);
                                always @(posedge clk) {c, q} <= q + a;"""),
    "carry out and lut": (12, """input [7:0] a, b, output [7:0] y, output c, v);
                              wire [8:0] t = {1'b0, a} + {1'b0, b};
                              assign y = t[7:0], c = t[8], v = ^t[8:5];"""),
    "sum that is not added alone": (18, """input [7:0] a, b, input s, output reg [7:0] q);
                                        always @(posedge clk) q <= s ? q + a : b;"""),
}


@pytest.mark.slow
def test_small_modules(tmp_path):
    assert counted(tmp_path, logic_cells, "synth_ice40 -device u", CELLS) == {
        name: cells for name, (cells, _) in CELLS.items()}


@pytest.mark.slow
def test_tiny(tmp_path):
    generate(load_config("configs/tiny.toml"), load_network("weights/tiny.npz"), tmp_path)
    device = DEVICES["iCE40UP5K"]
    found = sizes(map_netlist(tmp_path, device), device)
    assert found["logic"] == pytest.approx(3827, rel=0.01)  # ICESTORM_LC of nextpnr
