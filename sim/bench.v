// Plays pixels, and words to load, into an engine and writes down all that leaves it.
//
// Runs under cocotb, which gives clock and reset and waits for `done`: nothing of Python runs in
// between. sim/verilog.py writes `pixels.txt`, `loads.txt` and `waits.txt` and reads `events.bin`,
// records of kind, index, cycle and payload in words of 32 bits. What is sampled at a rising edge
// is what that edge takes.

module bench #(
  parameter PIXELS = 1, RESULT = 1, PROBE = 1, LAYERS = 1, SLOTS = 1, LOAD = 1,
  parameter LIMIT = 2000000,  // cycles without a result, after which the engine hangs
  parameter WORDS = 0,      // a result is transfers of 32 bits, the last one marked
  parameter PAYLOAD = 32    // bits of a record's payload
) (input clk, input rst, output reg done);
  localparam CODES = 0, TRANSFER = 1, BEGIN = 2, IDLE = 3, FRAME = 4, LOADED = 5, REFUSED = 6,
             VANISHED = 7, CHANGED = 8, UNKNOWN = 9, HANGS = 10;
  localparam LAYER_BITS = LAYERS > 1 ? $clog2(LAYERS) : 0;
  localparam PORT_BITS = LAYERS > 1 ? LAYER_BITS : 1;

  reg pixels_valid = 0;
  reg [PIXELS-1:0] pixels_payload = 0;
  wire pixels_ready, result_valid, result_ready, busy;
  wire [RESULT-1:0] result_payload;
  wire [PROBE-1:0] probe;
  wire [31:0] layer;
  reg [31:0] slot = 0;
  reg clip = 0;
`ifdef RAM
  reg load_valid = 0;
  reg [LOAD-1:0] load_payload = 0;
  wire load_ready, load_error, unloaded;
`endif

  engine engine(
    .clk(clk), .rst(rst),
    .pixels__valid(pixels_valid), .pixels__ready(pixels_ready), .pixels__payload(pixels_payload),
    .result__valid(result_valid), .result__ready(result_ready), .result__payload(result_payload),
`ifdef RAM
    .load__valid(load_valid), .load__ready(load_ready), .load__payload(load_payload),
    .load_error(load_error), .unloaded(unloaded),
`endif
`ifdef SEVERAL_SLOTS
    .slot(slot[$clog2(SLOTS)-1:0]),
`endif
`ifdef CLIPS
    .clip(clip),
`endif
    .layer(layer[PORT_BITS-1:0]), .probe(probe), .busy(busy));
  assign layer[31:PORT_BITS] = 0;

  integer events, progress, pixels, loads, waits, frames, results, found;
  reg strict;
  initial begin
    done = 0;
    events = $fopen("events.bin", "wb");
    progress = $fopen("progress", "w");
    pixels = $fopen("pixels.txt", "r");
    loads = $fopen("loads.txt", "r");
    waits = $fopen("waits.txt", "r");
    found = $value$plusargs("frames=%d", frames);
    found = $value$plusargs("results=%d", results);
    strict = $test$plusargs("strict") != 0;
  end

  reg [31:0] cycle = 0, idle = 0, old_layer = 0, sent = 0, loaded = 0, left = 0, ended = 0;
  reg was_busy = 0;

  task record(input [31:0] kind, input [31:0] index, input [PAYLOAD-1:0] payload);
    $fwrite(events, "%u", {payload, cycle, index, kind});
  endtask

  task stop(input [31:0] kind);
    if (!done) begin
      record(kind, 0, 0);
      done = 1;
    end
  endtask

  // What is on offer next: a pixel, whether it begins a frame (2: and a clip), what it waits for.
  reg have = 0, last = 0;
  reg [1:0] first = 0;
  reg [31:0] pause = 0, wanted = 0, needs = 0;
  reg [PIXELS-1:0] pixel;
  task next_pixel;
    begin
      found = $fscanf(pixels, "%d %d %d %d %d %h", first, last, wanted, needs, pause, pixel);
      have = found == 6;
    end
  endtask

`ifdef RAM
  reg offers = 0;
  reg [31:0] after = 0;
  reg [LOAD-1:0] word;
  task next_word;
    begin
      found = $fscanf(loads, "%d %h", after, word);
      offers = found == 2;
    end
  endtask
`endif
  // Cycles until the transfer on offer is taken; the file is read over and over.
  reg [31:0] left_to_wait = 0, next_wait = 0;
  task read_wait;
    begin
      found = $fscanf(waits, "%d", next_wait);
      if (found != 1) begin
        found = $fseek(waits, 0, 0);
        found = $fscanf(waits, "%d", next_wait);
      end
      left_to_wait <= next_wait;
    end
  endtask
  assign result_ready = result_valid && left_to_wait == 0;

  reg held = 0;
  reg [RESULT-1:0] offered = 0;

  always @(posedge clk) begin
    if (rst) begin
      if (!have) next_pixel;
`ifdef RAM
      if (!offers) next_word;
`endif
      read_wait;
    end else if (!done) begin
      cycle = cycle + 1;
      idle = idle + 1;
      if (strict && ^{pixels_ready, result_valid, result_payload, probe, busy, layer
`ifdef RAM
                      , load_ready, load_error, unloaded
`endif
                      } === 1'bx)
        stop(UNKNOWN);

      // Operations and their codes.
      if (busy) begin
        if (!was_busy || layer != old_layer) begin
          record(BEGIN, layer, 0);
          $fwrite(progress, ".");
          $fflush(progress);
        end
        if (probe[0]) record(CODES, LAYER_BITS > 0 ? (probe >> 1) & ((1 << LAYER_BITS) - 1) : 0,
                             probe >> (1 + LAYER_BITS));
      end else if (was_busy) begin
        record(IDLE, 0, 0);
        ended = ended + 1;
      end
      was_busy = busy;
      old_layer = layer;

      // Results: an offer stays as it is until it is taken.
      if (held && !result_valid) stop(VANISHED);
      else if (held && result_payload !== offered) stop(CHANGED);
      if (result_valid && result_ready) begin
        record(TRANSFER, 0, result_payload);
        idle = 0;
        read_wait;
        if (!WORDS || result_payload[RESULT-1]) left = left + 1;
      end
      held = result_valid && !result_ready;
      offered = result_payload;
      if (held) left_to_wait <= left_to_wait - 1;

      // Words to load.
`ifdef RAM
      if (load_error) record(REFUSED, 0, 0);
      if (load_valid && load_ready) begin
        record(LOADED, 0, 0);
        loaded = loaded + 1;
        next_word;
      end
      load_valid <= offers && sent >= after;
      load_payload <= word;
`endif

      // Pixels; another program's number is there a cycle before them.
      if (pixels_valid && pixels_ready) begin
        if (first != 0) record(FRAME, 0, 0);
        if (last) sent = sent + 1;
        next_pixel;
      end else if (pause != 0) pause = pause - 1;
      pixels_valid <= have && pause == 0 && slot == wanted && loaded >= needs;
      pixels_payload <= pixel;
      clip <= first == 2;
      if (have) slot <= wanted;

      if (left == results && ended == frames) done = 1;
      else if (idle == LIMIT) stop(HANGS);
      if (done) begin
        $fclose(events);
        $fclose(progress);
      end
    end
  end
endmodule
