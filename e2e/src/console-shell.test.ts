import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readResult, runOnConsole } from './console-shell.ts'

const typed = 'root@node1:~# echo "KILN-BEG""IN-7"; { uname; } 2>&1; echo "KILN-E""ND-7 $?"\r\n'

test('the echo of the typed line is not taken for the output', () => {
  expect(readResult(typed, '7')).toBeUndefined()
  expect(readResult(`${typed}KILN-BEGIN-7\r\nLinux\r\n`, '7')).toBeUndefined()
})

test('output and exit code stand between the enclosing words', () => {
  expect(readResult(`${typed}KILN-BEGIN-7\r\nLinux\r\n6.1\r\nKILN-END-7 0\r\n# `, '7')).toEqual({
    code: 0,
    output: 'Linux\n6.1',
  })
})

test('output without a line break at its end is whole', () => {
  expect(readResult('KILN-BEGIN-7\r\n{"machine":"node1"}KILN-END-7 3\r\n', '7')).toEqual({
    code: 3,
    output: '{"machine":"node1"}',
  })
})

test('control sequences of the terminal are no output', () => {
  const text = '\u001b[?2004lKILN-BEGIN-7\r\n\u001b[1mbold\u001b[0m\r\nKILN-END-7 0\r\n'
  expect(readResult(text, '7')?.output).toBe('bold')
})

test('what a console loses before its shell runs is typed again', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'console-shell-'))
  const shell = spawn('sh', { stdio: ['pipe', 'pipe', 'ignore'] })
  let lost = 0
  const server = createServer((socket) => {
    socket.on('data', (typed) => {
      if (lost++ < 3) return
      socket.write(typed)
      shell.stdin.write(typed)
    })
    shell.stdout.on('data', (output: Buffer) => socket.write(output))
  })
  try {
    const path = join(folder, 'ttyS0')
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const { signal } = new AbortController()
    const result = await runOnConsole(path, 'echo hello; (exit 3)', {
      timeoutMs: 20_000,
      signal,
      helloMs: 20,
    })
    expect(result).toEqual({ code: 3, output: 'hello' })
    expect(lost).toBeGreaterThan(3)
  } finally {
    shell.kill()
    server.close()
    await rm(folder, { recursive: true })
  }
})
