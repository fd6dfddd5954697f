/** The rail beside a row: its glyph, and the lines of the chains that run there. */
import type { Rail } from "../model/rails";
import { Glyph, type Tone } from "./glyph";

/** Lane positions are set as custom properties through the style object, which a strict CSP allows. */
export function RailCell({ rail, tone }: { rail: Rail; tone: Tone }) {
  const own = rail.lane;
  return (
    <div class="rail">
      {rail.passes.map((lane) => (
        <i key={lane} class="line" style={{ "--lane": lane }} />
      ))}
      {rail.up && own >= 0 && <i class="line above" style={{ "--lane": own }} />}
      {rail.down && <i class="line below" style={{ "--lane": own }} />}
      {own >= 0 && (
        <span class="node" style={{ "--lane": own }}>
          <Glyph tone={tone} />
        </span>
      )}
    </div>
  );
}
