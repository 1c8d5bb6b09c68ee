"""LUT sites of Gowin devices against those of nextpnr-himbaechel 0.11, noted here once."""

import pytest

from hw.gowin import logic_sites
from tests.mapped import counted

SITES = {
    "delays": (0, "input d, output reg q); reg [6:0] s; always @(posedge clk) {q, s} <= {s, d};"),
    "luts": (4, """input [7:0] a, output reg q, output y); assign y = ^a[2:0];
                   always @(posedge clk) q <= ^a;"""),
    "seven bits": (8, "input [6:0] a, b, output [6:0] y); assign y = a + b;"),
    "eight bits": (10, "input [7:0] a, b, output [7:0] y); assign y = a + b;"),
    "carry out": (10, "input [7:0] a, b, output [8:0] y); assign y = a + b;"),
    "counter": (11, """input en, output reg [7:0] q);
                    always @(posedge clk) if (en) q <= q + 1;"""),
    "comparison": (11, "input [7:0] a, b, output y); assign y = a < b;"),
    "two chains": (21, """input [7:0] a, b, output [7:0] y, output z); assign y = a - b;
        assign z = a[6:0] < b[6:0];"""),
    "carries with loads on their way": (12, """input [2:0] a, b, output [2:0] y, s);
        ALU #(.ALU_MODE(0)) first(.CIN(1'b0), .I0(a[0]), .I1(b[0]), .I3(1'b0), .COUT(y[0]),
                                  .SUM(s[0]));
        ALU #(.ALU_MODE(0)) second(.CIN(y[0]), .I0(a[1]), .I1(b[1]), .I3(1'b0), .COUT(y[1]),
                                   .SUM(s[1]));
        ALU #(.ALU_MODE(0)) third(.CIN(y[1]), .I0(a[2]), .I1(b[2]), .I3(1'b0), .COUT(y[2]),
                                  .SUM(s[2]));"""),
    "distributed RAM": (16, """input we, input [3:0] a, w, input [5:0] d, output reg [5:0] q);
        reg [5:0] m [0:15];
        always @(posedge clk) begin if (we) m[w] <= d; q <= m[a]; end"""),
}


@pytest.mark.slow
def test_small_modules(tmp_path):
    assert counted(tmp_path, logic_sites, "synth_gowin -family gw1n -nodsp -nowidelut", SITES) == {
        name: sites for name, (sites, _) in SITES.items()}
