/**
 * Makes a screenshot a third of its size: 256 colours, its most frequent ones and those that are least like any of
 * them (a small red sign is seen, however few its pixels are); every other colour becomes the nearest of these.
 * Reads 8-bit PNGs without interlacing, as Chromium writes them, and writes an indexed PNG.
 */
import { crc32, deflateSync, inflateSync } from "node:zlib";

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const TRUECOLOUR = 2;
const TRUECOLOUR_ALPHA = 6;
const INDEXED = 3;
const FREQUENT_COLOURS = 128;
const MAX_COLOURS = 256;

/** The same picture as an indexed PNG. Throws where the PNG is of another kind. */
export function paletted(png) {
  const { width, height, channels, pixels } = decoded(png);
  const colours = new Uint32Array(width * height);
  const seen = new Map();
  for (let at = 0; at < colours.length; at += 1) {
    const from = at * channels;
    const colour = (pixels[from] << 16) | (pixels[from + 1] << 8) | pixels[from + 2];
    colours[at] = colour;
    seen.set(colour, (seen.get(colour) ?? 0) + 1);
  }
  const chosen = choose([...seen].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([colour]) => colour));
  const indexOf = new Map([...seen.keys()].map((colour) => [colour, nearest(chosen, colour)]));
  const rows = Buffer.alloc(height * (width + 1));
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) rows[y * (width + 1) + 1 + x] = indexOf.get(colours[y * width + x]);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, INDEXED], 8);
  const table = Buffer.from(chosen.flatMap((colour) => [colour >> 16, (colour >> 8) & 255, colour & 255]));
  const data = deflateSync(rows, { level: 9, memLevel: 9 });
  const parts = [chunk("IHDR", header), chunk("PLTE", table), chunk("IDAT", data), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([SIGNATURE, ...parts]);
}

/** The palette, from all colours in the order of their frequency. */
function choose(colours) {
  const chosen = colours.slice(0, FREQUENT_COLOURS);
  const rest = colours.slice(FREQUENT_COLOURS);
  const distances = rest.map((colour) => distance(colour, chosen[nearest(chosen, colour)]));
  while (chosen.length < MAX_COLOURS && chosen.length < colours.length) {
    const farthest = distances.indexOf(Math.max(...distances));
    const added = rest[farthest];
    chosen.push(added);
    rest.forEach((colour, index) => {
      distances[index] = Math.min(distances[index], distance(colour, added));
    });
  }
  return chosen;
}

function nearest(palette, colour) {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  palette.forEach((other, index) => {
    const apart = distance(colour, other);
    if (apart < least) [best, least] = [index, apart];
  });
  return best;
}

/** Squared, each channel weighted by how well the eye tells it. */
function distance(a, b) {
  const [red, green, blue] = [16, 8, 0].map((shift) => ((a >> shift) & 255) - ((b >> shift) & 255));
  return 2 * red * red + 4 * green * green + 3 * blue * blue;
}

function decoded(png) {
  const data = [];
  let header = Buffer.alloc(0);
  for (let at = SIGNATURE.length; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const type = png.toString("latin1", at + 4, at + 8);
    const body = png.subarray(at + 8, at + 8 + length);
    if (type === "IHDR") header = body;
    if (type === "IDAT") data.push(body);
    at += length + 12;
  }
  const [width, height, depth, kind, interlaced] = [
    header.readUInt32BE(0),
    header.readUInt32BE(4),
    ...header.subarray(8, 10),
    header[12],
  ];
  const channels = { [TRUECOLOUR]: 3, [TRUECOLOUR_ALPHA]: 4 }[kind];
  if (depth !== 8 || channels === undefined || interlaced) throw new Error("the screenshot is no plain 8-bit PNG");
  return { width, height, channels, pixels: unfiltered(inflateSync(Buffer.concat(data)), width * channels, channels) };
}

/** Undoes the filters of section 9 of the PNG specification, row by row. */
function unfiltered(rows, stride, channels) {
  const pixels = Buffer.alloc((rows.length / (stride + 1)) * stride);
  for (let row = 0; row * stride < pixels.length; row += 1) {
    const filter = rows[row * (stride + 1)];
    for (let x = 0; x < stride; x += 1) {
      const at = row * stride + x;
      const left = x >= channels ? pixels[at - channels] : 0;
      const up = row > 0 ? pixels[at - stride] : 0;
      const corner = row > 0 && x >= channels ? pixels[at - stride - channels] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      pixels[at] = rows[row * (stride + 1) + 1 + x] + guess;
    }
  }
  return pixels;
}

function paeth(left, up, corner) {
  const estimate = left + up - corner;
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(estimate - value));
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

function chunk(type, body) {
  const named = Buffer.concat([Buffer.from(type, "latin1"), body]);
  const framed = Buffer.alloc(named.length + 8);
  framed.writeUInt32BE(body.length, 0);
  named.copy(framed, 4);
  framed.writeUInt32BE(crc32(named), named.length + 4);
  return framed;
}
