import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Measured, measured } from './measured-process.ts'

/** `kiln butane` on a config of 200 lines takes at most this, from its start to its end. */
export const butaneBudgetMs = 150

const kiln = join(import.meta.dirname, '../../../../dist/bin/kiln')
const fileCount = 30
const unitCount = 2

/** 200 lines as an operator writes them: files with their text, and units. */
function typicalButane(): string {
  const file = (index: number): string[] => [
    `    - path: /etc/app/part${index}.conf`,
    '      mode: 0644',
    '      contents:',
    '        inline: |',
    `          listen = 127.0.0.1:${8000 + index}`,
    `          name = part ${index}`,
  ]
  const unit = (index: number): string[] => [
    `    - name: app${index}.service`,
    '      enabled: true',
    '      contents: |',
    '        [Service]',
    '        ExecStart=/usr/bin/true',
    '        [Install]',
    '        WantedBy=multi-user.target',
  ]
  const each = (count: number, lines: (index: number) => string[]): string[] =>
    Array.from({ length: count }, (_, index) => lines(index)).flat()
  return [
    'variant: fcos',
    'version: 1.5.0',
    'storage:',
    '  files:',
    ...each(fileCount, file),
    'systemd:',
    '  units:',
    ...each(unitCount, unit),
  ].join('\n')
}

/** The command as a user starts it, from its launcher, translating the config into a file. */
export async function butaneRounds(folder: string, rounds: number): Promise<Measured[]> {
  const [config, output] = [join(folder, 'typical.bu'), join(folder, 'typical.ign')]
  writeFileSync(config, typicalButane())
  const found: Measured[] = []
  const args = ['butane', '--strict', '--output', output, config]
  for (let round = 0; round < rounds; round++) found.push(await measured(kiln, args, process.env))
  const { status, stdout } = spawnSync(kiln, ['ignition', 'validate', output], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`kiln butane wrote what is not valid: ${stdout}`)
  return found
}
