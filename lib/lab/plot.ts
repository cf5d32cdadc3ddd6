/**
 * Draws vega-lite specifications: SVG for any reader, and an interactive chart where scripts run, with nothing loaded
 * from elsewhere. vega is loaded on demand: it has top-level await, and a static import would make every notebook's
 * `import 'vmxlab'` fail in a CommonJS kernel.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { TopLevelSpec } from 'vega-lite';

/** The chart as an SVG document. */
export const toSVG = async (spec: TopLevelSpec): Promise<string> => {
  const [vega, lite] = await Promise.all([import('vega'), import('vega-lite')]);
  const view = new vega.View(vega.parse(lite.compile(spec).spec), { renderer: 'none' });
  const svg = await view.toSVG();
  view.finalize();
  return svg;
};

const library = (name: string): string => {
  const require = createRequire(import.meta.url);
  // "exports" hides the browser build: it lies beside the package's entry
  const paths = require.resolve.paths(name) ?? [];
  for (const p of paths) {
    try {
      return readFileSync(join(p, name, 'build', `${name}.min.js`), 'utf8');
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== 'ENOENT') throw e;
    }
  }
  throw new Error(`the browser build of ${name} is not under ${dirname(import.meta.url)}`);
};

/** The vega libraries as one script element; once a notebook. AMD loaders are hidden so that the globals are set. */
export const vegaLibraryHTML = (): string => {
  const code = ['vega', 'vega-lite', 'vega-embed']
    .map((n) => library(n).replaceAll('</script', '<\\/script'))
    .join('\n;\n');
  return `<script>(function(){var d=window.define;window.define=undefined;${code}\n;window.define=d;})();</script>`;
};

let plots = 0;

/** HTML of one chart: static SVG, replaced by the interactive chart where `vegaLibraryHTML` has run. */
export const chart = async (spec: TopLevelSpec): Promise<string> => {
  const id = `vmxlab-chart-${++plots}`;
  const json = JSON.stringify(spec).replaceAll('<', '\\u003c');
  const svg = await toSVG(spec);
  return `<div id="${id}" class="vmxlab-chart">${svg}</div>
<script>(function(){var e=document.getElementById(${JSON.stringify(id)});if(window.vegaEmbed)window.vegaEmbed(e,${json},{actions:false,renderer:'svg'});})();</script>`;
};
