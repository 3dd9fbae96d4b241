import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import type { StoryContext } from './story.ts'

/** Starts a program that a story needs beside its machines; it ends with the story. Its output is `NAME.log`. */
export function startBeside(
  context: Pick<StoryContext, 'folder' | 'onEnd'>,
  name: string,
  [program, ...args]: readonly [string, ...string[]],
): void {
  const log = openSync(join(context.folder, `${name}.log`), 'a')
  const child = spawn(program, args, { stdio: ['ignore', log, log] })
  closeSync(log)
  const ended = new Promise<void>((resolve) => {
    child.once('error', () => resolve())
    child.once('exit', () => resolve())
  })
  context.onEnd(async () => {
    child.kill('SIGTERM')
    await ended
  })
}
