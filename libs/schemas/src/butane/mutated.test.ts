import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { parseIgnition } from '../ignition-parse.ts'
import { parsePod } from '../pod.ts'
import { describeButaneProblem } from './report.ts'
import { versionsOf } from './specs.ts'
import { translateButane } from './translate.ts'

const valid = `
boot_device:
  layout: x86_64
  mirror: { devices: [/dev/a, /dev/b] }
  luks: { tpm2: true, threshold: 1, tang: [{ url: http://t, thumbprint: x }] }
grub: { users: [{ name: root, password_hash: grub.pbkdf2.x }] }
metadata: { name: m, labels: { machineconfiguration.openshift.io/role: worker } }
openshift: { kernel_type: realtime, fips: true, kernel_arguments: [a] }
ignition:
  config: { merge: [{ inline: '{"ignition": {"version": "3.6.0"}}' }], replace: { local: a } }
  security: { tls: { certificate_authorities: [{ local: a }] } }
kernel_arguments: { should_exist: [a], should_not_exist: [b] }
passwd:
  users: [{ name: core, ssh_authorized_keys: [k], ssh_authorized_keys_local: [a] }]
storage:
  disks: [{ device: /dev/c, partitions: [{ label: root, size_mib: 1 }, { label: x }] }]
  filesystems:
    - { device: /dev/d, path: /var/d, format: ext4, with_mount_unit: true, mount_options: [ro] }
    - { device: /dev/e, format: swap, with_mount_unit: true }
  luks: [{ name: l, device: /dev/e, clevis: { tpm2: true } }]
  trees: [{ local: tree, path: /t, file_mode: 0644 }]
  files: [{ path: /f, mode: 0644, contents: { inline: x } }, { path: /g, append: [{ local: a }] }]
  links: [{ path: /l, target: /f }]
systemd:
  units: [{ name: a.service, contents_local: a, dropins: [{ name: b.conf, contents_local: a }] }]
`
const versions = ['fcos', 'flatcar', 'fiot', 'r4e', 'openshift', 'kiln'].flatMap((variant) =>
  (versionsOf(variant) ?? []).map((version) => ({ variant, version })),
)

const hostile = fc.constantFrom<unknown>(
  ...[null, true, '', '/', '..', '../../etc', 'a\u0000b', '\n', 'constructor', '__proto__', 's390x-eckd'],
  ...[-1, 0.5, 1e21, 644, '644', 'x'.repeat(300), [], {}, [null], [[1]], { a: 1 }],
)
const changes = fc.array(fc.record({ at: fc.nat(), remove: fc.boolean(), value: hostile }), { maxLength: 4 })

/** The valid text with values removed or replaced; a list takes what replaces it as one more entry. */
function mutated(list: readonly { at: number; remove: boolean; value: unknown }[]): string {
  const source = parse(valid) as Record<string, unknown>
  for (const { at, remove, value } of list) {
    const places: [Record<string, unknown>, string][] = []
    const walk = (node: unknown): void => {
      if (typeof node !== 'object' || node === null) return
      for (const [name, child] of Object.entries(node)) {
        places.push([node as Record<string, unknown>, name])
        walk(child)
      }
    }
    walk(source)
    const place = places[at % places.length]
    if (!place) continue
    const [parent, name] = place
    if (remove) delete parent[name]
    else if (Array.isArray(parent[name])) parent[name].push(structuredClone(value))
    else parent[name] = structuredClone(value)
  }
  return stringify(source)
}

test('a changed source of any version is translated or has an error, and every finding has a place in it', () => {
  const bytes = Buffer.from('x')
  const files = {
    read: () => ({ ok: true as const, bytes }),
    list: () => ({ ok: true as const, entries: [{ kind: 'file' as const, name: 'f', executable: false }] }),
  }
  const documents = { parseIgnition, parsePod }
  fc.assert(
    fc.property(fc.constantFrom(...versions), changes, ({ variant, version }, list) => {
      const text = `variant: ${variant}\nversion: ${version}\n${mutated(list)}`
      const result = translateButane(text, { documents, files })
      const refused = result.problems.some(({ severity }) => severity === 'error')
      if (result.ok) expect(refused).toBe(false)
      else expect(refused || result.failure !== '').toBe(true)
      const lineCount = text.split('\n').length
      for (const problem of result.problems) {
        const [, line] = /line (\d+) col \d+/.exec(describeButaneProblem(problem)) ?? []
        expect(Number(line)).toBeGreaterThan(0)
        expect(Number(line)).toBeLessThanOrEqual(lineCount)
      }
      if (result.ok) expect(JSON.parse(JSON.stringify(result.config))).toBeTypeOf('object')
    }),
    { numRuns: 250 },
  )
})
