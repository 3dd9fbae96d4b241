#!/usr/bin/env node
import { readFileSync, writeFileSync, writeSync } from 'node:fs'
import { openFilesDirectory } from '@kiln/service'
import { type ButaneIo, runButane } from './command.ts'

export { runButane }

/** The command's ends in the real world. */
export function realButaneIo(env: Record<string, string | undefined>): ButaneIo {
  return {
    read: (path) => readFileSync(path ?? 0, 'utf8'),
    write(path, text) {
      if (path === undefined) writeWhole(1, text)
      else writeFileSync(path, text)
    },
    complain: (text) => writeWhole(2, text),
    openFiles: openFilesDirectory,
    async loadDocuments() {
      const { parseIgnition, parsePod } = await import('./documents.ts')
      return { parseIgnition, parsePod }
    },
    colourful: process.stderr.isTTY === true && env['NO_COLOR'] === undefined,
  }
}

/** A pipe takes a part at a time. */
function writeWhole(descriptor: number, text: string): void {
  const bytes = Buffer.from(text, 'utf8')
  let at = 0
  while (at < bytes.length) {
    try {
      at += writeSync(descriptor, bytes, at)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    }
  }
}

if (import.meta.main) {
  process.exitCode = await runButane(process.argv.slice(2), realButaneIo(process.env))
}
