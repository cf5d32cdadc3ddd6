/** Jupyter's notebook server on this project's notebooks, with its kernel found and nothing registered globally. */
import { spawn } from 'node:child_process';
import { LabError } from '../../base/error.js';
import { JUPYTER, NOTEBOOKS } from '../paths.js';

export interface ServeOptions {
  /** Opens a browser; without a display only the address is printed. */
  readonly browser: boolean;
  readonly port?: string;
}

/** The server's command line and environment. */
export const serverCommand = (
  options: ServeOptions,
  env: NodeJS.ProcessEnv = process.env,
  root = process.getuid?.() === 0,
): { readonly command: string; readonly args: readonly string[]; readonly env: NodeJS.ProcessEnv } => {
  const display = env['DISPLAY'] !== undefined || env['WAYLAND_DISPLAY'] !== undefined;
  const args = ['notebook', `--notebook-dir=${NOTEBOOKS}`];
  if (!options.browser || !display) args.push('--no-browser');
  if (root) args.push('--allow-root');
  if (options.port !== undefined) args.push(`--port=${options.port}`);
  // absolute: with a relative path the kernel dies at its start
  const paths = [JUPYTER, ...(env['JUPYTER_PATH'] === undefined ? [] : [env['JUPYTER_PATH']])];
  return { command: '/usr/bin/jupyter', args, env: { ...env, JUPYTER_PATH: paths.join(':') } };
};

/** Runs the server until the user ends it; returns its exit status. */
export const openNotebooks = (options: ServeOptions): Promise<number> => {
  const { command, args, env } = serverCommand(options);
  return new Promise((resolve, reject) => {
    // Ctrl-C is for the server, which asks whether to stop
    const ignore = (): void => {};
    process.on('SIGINT', ignore);
    const child = spawn(command, args, { env, stdio: 'inherit' });
    child.once('error', (e) =>
      reject(new LabError('notebook.server', `${command} could not be started: ${e.message}`)),
    );
    child.once('exit', (code) => {
      process.off('SIGINT', ignore);
      resolve(code === 0 || code === null ? 0 : 2);
    });
  });
};
