/** How the page is built: one hashed script, one hashed style sheet, nothing inline, so that a strict CSP holds. */
import { defineConfig, type Plugin } from "vite";

/** Lets the remembered theme be set before the first paint, where the browser knows `blocking`. */
function blockRender(): Plugin {
  return {
    name: "block-render",
    enforce: "post",
    transformIndexHtml: {
      order: "post",
      handler: (html) => html.replace('<script type="module"', '<script type="module" blocking="render"'),
    },
  };
}

export default defineConfig({
  base: "/",
  plugins: [blockRender()],
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    target: ["chrome111", "firefox114", "safari16.4"],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    proxy: { "/v1": { target: process.env.REFLEX_SERVER ?? "http://127.0.0.1:8765" } },
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
} as Parameters<typeof defineConfig>[0]);
