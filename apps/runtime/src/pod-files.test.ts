import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parsePodText, readPodFiles } from './pod-files.ts'

const pod = (name: string): string => `apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec: {containers: [{name: web, image: 'oci:/x'}]}
`

function folderWith(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-pods-'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return folder
}

test('every YAML and JSON file of the folder is read, also with several pods in one', async () => {
  const folder = folderWith({
    'b.yaml': `${pod('two')}---\n${pod('three')}`,
    'a.yml': pod('one'),
    'c.json': JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'four' },
      spec: { containers: [{ name: 'x', image: 'oci:/x' }] },
    }),
    'notes.txt': 'not a pod',
    '.hidden.yaml': 'not: a pod',
  })
  const { pods, problems } = await readPodFiles(folder)
  expect([...pods.keys()]).toEqual(['one', 'two', 'three', 'four'])
  expect(problems).toEqual([])
})

test('what is wrong with a file is said with its name, and the others are read', async () => {
  const folder = folderWith({
    'A bad.yaml': pod('x').replace('spec:', 'spec: [\nspec:'),
    'odd.yaml': pod('y').replace('containers', 'runtimeClassName: kata, containers'),
    'good.yaml': pod('z'),
    'zz-again.yaml': pod('z'),
    'empty.yaml': '',
  })
  const { pods, problems } = await readPodFiles(folder)
  expect([...pods.keys()]).toEqual(['z'])
  expect(problems.map(({ name }) => name)).toEqual(['a-bad', 'empty', 'odd', 'zz-again'])
  expect(problems.map(({ message }) => message).join('\n')).toMatch(
    /spec.runtimeClassName is not supported[\s\S]*is also in .*good.yaml/,
  )
})

test('a folder that is not there has no pods', async () => {
  const folder = folderWith({})
  rmSync(folder, { recursive: true })
  expect(await readPodFiles(folder)).toEqual({ pods: new Map(), problems: [] })
})

test('a text that explodes by aliases, or is too large, is refused', () => {
  const bomb = `a: &a [x,x]\nb: &b [*a,*a]\n${Array.from({ length: 30 }, (_, index) => `c${index}: &c${index} [${Array(9).fill('*b')}]`).join('\n')}\n`
  expect(() => parsePodText(bomb)).not.toThrow()
  expect(parsePodText(bomb).pods).toEqual([])
  expect(parsePodText('x'.repeat(2 << 20)).problems[0]).toMatch(/larger than/)
})
