import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import type { Random } from '@kiln/simulation'
import type { MemberProcess } from '../testing/member-process.ts'
import type { Partition } from './peer-proxy.ts'

export const faultKinds = ['kill', 'pause', 'partition', 'disk'] as const
export type FaultKind = (typeof faultKinds)[number]

/** A fault as it was: for the timeline. */
export type FaultSpan = { kind: FaultKind; member: string; from: number; to: number }

const diskSize = '96m'
const ballastBytes = 96 << 20

export function parseFaults(text: string): FaultKind[] {
  const names = text.split(',').filter((name) => name !== '' && name !== 'none')
  for (const name of names)
    if (!(faultKinds as readonly string[]).includes(name))
      throw new Fault('USAGE', `--nemesis ${name}: there are ${faultKinds.join(', ')} and none`)
  if (names.includes('disk') && process.getuid?.() !== 0)
    throw new Fault('USAGE', '--nemesis disk: mounting small disks needs root')
  return names as FaultKind[]
}

/** Does one thing after the other to the members, each undone after a while, until it shall stop; then all is as it was. */
export async function haunt(options: {
  kinds: readonly FaultKind[]
  members: readonly MemberProcess[]
  partition: Partition
  random: Random
  now(): number
  isOver(): boolean
  /** Those that were undone are added. */
  faults: FaultSpan[]
}): Promise<void> {
  const { kinds, members, random, now, isOver, faults } = options
  const wait = async (ms: number): Promise<void> => {
    const until = now() + ms
    while (!isOver() && now() < until) await pause(50)
  }
  await wait(500)
  while (!isOver() && kinds.length > 0) {
    const span: FaultSpan = {
      kind: random.pick([...kinds]),
      member: random.pick([...members]).name,
      from: now(),
      to: 0,
    }
    const member = members.find(({ name }) => name === span.member)!
    const undo = await inflict(span.kind, member, options)
    await wait(random.integer(300, 3000))
    await undo()
    span.to = now()
    faults.push(span)
    await wait(random.integer(300, 2500))
  }
}

/** Answers what makes it good again. */
async function inflict(
  kind: FaultKind,
  member: MemberProcess,
  { partition, members }: { partition: Partition; members: readonly MemberProcess[] },
): Promise<() => Promise<void> | void> {
  switch (kind) {
    case 'kill':
      await member.kill()
      return () => member.start()
    case 'pause':
      member.signal('SIGSTOP')
      return () => member.signal('SIGCONT')
    case 'partition':
      for (const other of members) if (other !== member) partition.cut(member.name, other.name)
      return () => partition.heal()
    case 'disk': {
      const ballast = join(member.dataDir, 'ballast')
      try {
        writeFileSync(ballast, Buffer.alloc(ballastBytes))
      } catch {
        // It is full: as it shall be.
      }
      return async () => {
        rmSync(ballast, { force: true })
        // A member whose log cannot be written ends; it begins anew as its unit would have it.
        await pause(200)
        if (!member.running) await member.start()
      }
    }
  }
}

/** A disk of its own for a member's data, small enough to be filled. */
export function mountSmallDisk(folder: string): () => void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${diskSize}`, 'kiln-verify', folder])
  return () => void execFileSync('umount', ['-l', folder])
}

const pause = (ms: number): Promise<void> => new Promise((resume) => setTimeout(resume, ms))
