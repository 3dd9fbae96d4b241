import { tmpdir } from 'node:os'
import { join } from 'node:path'

export type TestCommand = { command: string; args: string[] }

export type TestPart = {
  title: string
  /** Seconds it may take on two cores before the table says it is slow. */
  budgetSeconds: number
  commands: TestCommand[]
  /** Run after the others whatever became of them, and not counted. */
  cleanUp?: TestCommand[]
  /** Left out by `--fast`: it needs virtual machines or the packages of the image. */
  slow?: boolean
}

/** Lanes of a stage run side by side, the parts of a lane one after the other. */
export type TestStage = TestPart[][]

/** Runs of the simulation; each takes about a second of CPU. */
export const seedsDefault = 500

/** Minutes the stories may take at most; one that no longer fits is skipped and says so. */
const storyMinutesMax = 66

/**
 * What `kiln test` runs: parts that use one core run beside each other, and the stories alone, since the clocks of
 * emulated machines suffer from a busy host.
 */
export function testStages(root: string, node: string, seeds = seedsDefault): TestStage[] {
  const script = (path: string, ...args: string[]): TestCommand => ({
    command: node,
    args: ['--disable-warning=ExperimentalWarning', join(root, path), ...args],
  })
  const kiln = (...args: string[]): TestCommand => script('apps/cli/src/main.ts', ...args)
  const embeddedState = join(tmpdir(), `kiln-test-${process.pid}`)
  return [
    [[{ title: 'check', budgetSeconds: 60, commands: [kiln('check')] }]],
    [
      [
        {
          title: 'unit',
          budgetSeconds: 180,
          commands: [{ command: join(root, 'node_modules/.bin/vitest'), args: ['run'] }],
        },
      ],
      [
        {
          title: 'simulation',
          budgetSeconds: 360,
          commands: [script('apps/kv/src/simulation/main.ts', '--seeds', String(seeds), '--ticks', '5000')],
        },
        {
          // That the checks of the simulation find bugs.
          title: 'mutations',
          budgetSeconds: 60,
          commands: [
            script('apps/kv/src/simulation/main.ts', '--mutations', '--seeds', '60', '--ticks', '1500'),
          ],
        },
      ],
    ],
    [
      // Real clients wait a few seconds for an answer: the unit tests would leave the servers too little.
      [
        {
          title: 'conformance',
          budgetSeconds: 150,
          commands: [
            script('apps/kv/src/conformance/etcdctl.ts'),
            script('apps/ignition/src/conformance/ignition.ts'),
          ],
        },
      ],
      [
        {
          title: 'embedded',
          budgetSeconds: 60,
          commands: [kiln('up', '--embedded', '--state', embeddedState)],
          cleanUp: [kiln('down', '--state', embeddedState)],
        },
      ],
    ],
    [
      [
        { title: 'image', budgetSeconds: 240, commands: [kiln('image')], slow: true },
        {
          title: 'reproducible',
          budgetSeconds: 120,
          commands: [kiln('image', '--verify-reproducible')],
          slow: true,
        },
      ],
    ],
    [
      [
        {
          title: 'stories',
          budgetSeconds: 2_700,
          commands: [script('e2e/src/main.ts', '--budget', String(storyMinutesMax), '--retries', '1')],
          slow: true,
        },
      ],
    ],
  ]
}
