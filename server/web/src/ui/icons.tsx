/** The page's icons, drawn on a 16 by 16 grid in the colour of the text around them. */
import type { ComponentChildren } from "preact";

function Icon({ children, size = 16 }: { children: ComponentChildren; size?: number }) {
  return (
    <svg
      class="icon"
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width="1.5"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const SearchIcon = () => (
  <Icon>
    <circle cx="7" cy="7" r="4.25" />
    <path d="M10.3 10.3 13.5 13.5" />
  </Icon>
);

export const CloseIcon = ({ size = 16 }: { size?: number }) => (
  <Icon size={size}>
    <path d="m4 4 8 8M12 4l-8 8" />
  </Icon>
);

export const ChevronIcon = () => (
  <Icon size={12}>
    <path d="m4 6 4 4 4-4" />
  </Icon>
);

export const LinkIcon = () => (
  <Icon>
    <path d="M6.7 9.3a2.6 2.6 0 0 0 3.7 0l2-2a2.6 2.6 0 1 0-3.7-3.7l-.6.6" />
    <path d="M9.3 6.7a2.6 2.6 0 0 0-3.7 0l-2 2a2.6 2.6 0 1 0 3.7 3.7l.6-.6" />
  </Icon>
);

export const BracesIcon = () => (
  <Icon>
    <path d="M6 2.5H5A1.5 1.5 0 0 0 3.5 4v2.2L2 8l1.5 1.8V12A1.5 1.5 0 0 0 5 13.5h1M10 2.5h1A1.5 1.5 0 0 1 12.5 4v2.2L14 8l-1.5 1.8V12a1.5 1.5 0 0 1-1.5 1.5h-1" />
  </Icon>
);

export const CheckIcon = ({ size = 16 }: { size?: number }) => (
  <Icon size={size}>
    <path d="m3.5 8.5 3 3 6-7" />
  </Icon>
);

export const PauseIcon = () => (
  <Icon size={12}>
    <path d="M5.5 3v10M10.5 3v10" stroke-width="2.5" />
  </Icon>
);

export const PlayIcon = () => (
  <Icon size={12}>
    <path d="M5 3.2v9.6L12.5 8Z" fill="currentColor" />
  </Icon>
);

export const SunIcon = () => (
  <Icon>
    <circle cx="8" cy="8" r="2.75" />
    <path d="M8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9" />
  </Icon>
);

export const MoonIcon = () => (
  <Icon>
    <path d="M13.5 9.4A5.8 5.8 0 0 1 6.6 2.5a5.8 5.8 0 1 0 6.9 6.9Z" />
  </Icon>
);

export const SystemIcon = () => (
  <Icon>
    <rect x="2" y="3" width="12" height="8" rx="1.5" />
    <path d="M5.5 13.5h5" />
  </Icon>
);

export const GlobeIcon = () => (
  <Icon>
    <circle cx="8" cy="8" r="5.75" />
    <path d="M8 4.8V8l2.2 1.6" />
  </Icon>
);

export const HelpIcon = () => (
  <Icon>
    <circle cx="8" cy="8" r="5.75" />
    <path d="M6.4 6.3A1.7 1.7 0 0 1 8 5.1c1 0 1.7.7 1.7 1.5 0 1.2-1.7 1.3-1.7 2.4M8 11.2v.1" />
  </Icon>
);

export const LogOutIcon = () => (
  <Icon>
    <path d="M6.5 13.5h-3a1 1 0 0 1-1-1v-9a1 1 0 0 1 1-1h3M10.5 11l3-3-3-3M13.2 8H6" />
  </Icon>
);

export const ArrowUpIcon = () => (
  <Icon size={12}>
    <path d="M8 13V3M4 7l4-4 4 4" stroke-width="2" />
  </Icon>
);

export const EyeOffIcon = () => (
  <Icon>
    <path d="M2.5 2.5l11 11M6.7 6.8a1.8 1.8 0 0 0 2.5 2.5M4.4 4.6C2.6 5.7 1.6 8 1.6 8s2 4.3 6.4 4.3c1.2 0 2.3-.3 3.1-.8M7 3.8 8 3.7c4.4 0 6.4 4.3 6.4 4.3s-.5 1.1-1.5 2.2" />
  </Icon>
);

/** The mark of Reflex: a pulse. */
export const Mark = ({ size = 24 }: { size?: number }) => (
  <svg class="mark" width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="7" />
    <path d="M5 17h5l3-9 6 17 3-8h5" />
  </svg>
);
