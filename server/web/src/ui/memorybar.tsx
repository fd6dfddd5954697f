/** An OOM kill's memory as a bar against the limit that was full. */
import type { MemoryPicture } from "../model/facts";
import { exactBytes, size } from "../model/units";

const PARTS: { key: keyof Omit<MemoryPicture, "limit">; name: string }[] = [
  { key: "anon", name: "anonymous" },
  { key: "file", name: "file" },
  { key: "shmem", name: "shared" },
  { key: "other", name: "others" },
];

export function MemoryBar({ picture }: { picture: MemoryPicture }) {
  const total = picture.anon + picture.file + picture.shmem + picture.other;
  const scale = Math.max(picture.limit, total);
  const parts = PARTS.filter(({ key }) => picture[key] > 0);
  return (
    <figure class="memory">
      <div class="bar" role="img" aria-label={`${size(total)} of a limit of ${size(picture.limit)}`}>
        {parts.map(({ key }) => (
          <i key={key} class={key} style={{ width: `${(100 * picture[key]) / scale}%` }} />
        ))}
      </div>
      <figcaption>
        {parts.map(({ key, name }) => (
          <span key={key} title={exactBytes(picture[key])}>
            <i class={`swatch ${key}`} />
            {name} {size(picture[key])}
          </span>
        ))}
        <span class="limit" title={exactBytes(picture.limit)}>
          limit {size(picture.limit)}
        </span>
      </figcaption>
    </figure>
  );
}
