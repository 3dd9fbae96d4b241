import { expect, test } from 'vitest'
import { readResult } from './console-shell.ts'

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
