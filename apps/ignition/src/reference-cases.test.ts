import {
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Http } from './http-request.ts'
import { ignite } from './ignite.ts'
import { simulatedRun } from './simulated-run.ts'

/** Black-box cases of the reference implementation, outside of this repository. */
const folder = new URL('../../../../shared/cases/ignition/', import.meta.url)
const there = existsSync(folder)
if (!there) console.log('skipped: no case data beside the repository (shared/cases/ignition)')

type Node = { dir: string; name: string; uid: number; gid: number; mode?: number }
type Partition = {
  label: string
  fsType?: string
  files?: (Node & { contents: string })[]
  directories?: Node[]
  links?: (Node & { target: string; hard: boolean })[]
  removedNodes?: Node[]
}
type Case = {
  name: string
  group: string
  expect: 'success' | 'failure'
  versions: string[]
  config: string
  needs: string[]
  env: string[]
  mountDevices: unknown[]
  systemConfigFiles: unknown[]
  in: { partitions: Partition[] }[]
  out: { partitions: Partition[] }[]
}

/** Why a case cannot be run into a plain folder, if so. */
function reasonToSkip(each: Case): string | undefined {
  if (each.needs.some((need) => need !== 'http-8080')) return `needs ${each.needs.join(', ')}`
  if (each.mountDevices.length > 0 || /"(disks|filesystems|raid|luks)"/.test(each.config))
    return 'needs devices'
  if (each.systemConfigFiles.length > 0) return 'distribution configs are not read'
  if (/kernelArguments|SELINUX/.test(each.config)) return 'kernel arguments are refused'
  return undefined
}

const rootOf = (disks: Case['in']): Partition =>
  disks[0]?.partitions.find(({ label }) => label === 'ROOT') ?? { label: 'ROOT' }
const privileged = process.getuid?.() === 0

function prepare(root: string, partition: Partition): void {
  const at = (node: Node): string => join(root, node.dir, node.name)
  const make = (node: Node, how: (path: string) => void): void => {
    mkdirSync(dirname(at(node)), { recursive: true })
    how(at(node))
    if (privileged && !lstatSync(at(node)).isSymbolicLink()) chownSync(at(node), node.uid, node.gid)
  }
  for (const node of partition.directories ?? []) make(node, (path) => mkdirSync(path, { recursive: true }))
  for (const node of partition.files ?? []) make(node, (path) => writeFileSync(path, node.contents))
  for (const node of partition.links ?? []) {
    make(node, (path) =>
      node.hard ? linkSync(join(root, node.target), path) : symlinkSync(node.target, path),
    )
  }
}

function differences(root: string, partition: Partition): string[] {
  const wrong: string[] = []
  const check = (node: Node, what: string, holds: (path: string) => boolean): void => {
    const path = join(root, node.dir, node.name)
    const found = lstatSync(path, { throwIfNoEntry: false })
    if (!found) wrong.push(`${node.dir}/${node.name} is missing`)
    else if (!holds(path)) wrong.push(`${node.dir}/${node.name} is not ${what}`)
    else if (privileged && (found.uid !== node.uid || found.gid !== node.gid)) {
      wrong.push(`${node.dir}/${node.name} belongs to ${found.uid}:${found.gid}, not ${node.uid}:${node.gid}`)
    } else if (node.mode && (found.mode & 0o7777) !== node.mode) {
      wrong.push(`${node.dir}/${node.name} has mode ${(found.mode & 0o7777).toString(8)}`)
    }
  }
  for (const node of partition.files ?? []) {
    check(node, `a file with ${node.contents}`, (path) => {
      return (
        lstatSync(path).isFile() && (node.contents === '' || readFileSync(path, 'utf8') === node.contents)
      )
    })
  }
  for (const node of partition.directories ?? [])
    check(node, 'a directory', (path) => lstatSync(path).isDirectory())
  for (const node of partition.links ?? []) {
    check(node, `a link to ${node.target}`, (path) =>
      node.hard
        ? statSync(path).ino === statSync(join(root, node.target)).ino
        : lstatSync(path).isSymbolicLink() && readlinkSync(path) === node.target,
    )
  }
  for (const node of partition.removedNodes ?? []) {
    if (lstatSync(join(root, node.dir, node.name), { throwIfNoEntry: false }))
      wrong.push(`${node.name} is still there`)
  }
  return wrong
}

const read = <T>(name: string): T => JSON.parse(readFileSync(new URL(name, folder), 'utf8')) as T
/** The fixtures' server as their README has it: routes, and what each `_headers` variant asks of a request. */
function fixtureServer(routes: Record<string, string>): Http {
  const variants: Record<string, Record<string, string>> = {
    _headers: { 'x-auth': 'r8ewap98gfh4d8', 'keep-alive': '300' },
    _headers_overwrite: {
      'keep-alive': '1000',
      accept: 'application/json',
      'accept-encoding': 'identity, compress',
      'user-agent': 'MyUA',
    },
  }
  return async (call) => {
    const path = new URL(call.url).pathname
    const sent = Object.fromEntries(
      Object.entries(call.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
    )
    const [, base = '', variant = ''] = /^(.*?)(_headers.*)?$/.exec(path) ?? []
    const body = Buffer.from(routes[base] ?? '', 'base64')
    if (routes[base] === undefined) return { status: 404, headers: {}, body }
    if (variant === '_headers_redirect') {
      return { status: 302, headers: { location: `${path}ed` }, body: Buffer.alloc(0) }
    }
    const wanted = Object.entries(variants[variant] ?? {})
    const right =
      variant === '_headers_redirected'
        ? sent['x-auth'] === undefined && sent['keep-alive'] === undefined
        : wanted.every(([name, value]) => sent[name] === value)
    return { status: right ? 200 : 400, headers: {}, body }
  }
}

const cases = there
  ? readdirSync(folder)
      .filter((name) => name.startsWith('blackbox-'))
      .flatMap((name) => read<Case[]>(name))
  : []
const skipped = new Map<string, number>()
for (const each of cases) {
  const reason = reasonToSkip(each)
  if (reason) skipped.set(reason, (skipped.get(reason) ?? 0) + 1)
}
for (const [reason, count] of skipped) console.log(`skipped: ${count} reference cases: ${reason}`)

const runnable = cases.filter((each) => reasonToSkip(each) === undefined)

describe.skipIf(runnable.length === 0)('reference cases', () => {
  test.each(runnable)('$group $name: $expect', async (each) => {
    const http = fixtureServer(read<{ routes: Record<string, string> }>('served-fixtures.json').routes)
    const version = each.versions.filter((name) => !name.includes('-')).at(-1) ?? '3.0.0'
    const text = each.config.replaceAll('$version', version)
    const source = `data:;base64,${Buffer.from(text).toString('base64')}`
    const { run, root, said } = simulatedRun({ http, flags: ['--config', source] })
    mkdirSync(root)
    prepare(root, rootOf(each.in))
    const code = await ignite({ ...run, privileged })
    expect(code === 0 ? 'success' : 'failure', said.at(-1)).toBe(each.expect)
    if (each.expect === 'success') expect(differences(root, rootOf(each.out))).toEqual([])
  })
})
