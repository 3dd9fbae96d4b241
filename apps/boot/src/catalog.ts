import { Group, Profile } from '@kiln/schemas'
import { type Labels, normaliseLabel } from './labels.ts'

/** Something wrong with a file below the data directory. */
export type Problem = { file: string; message: string }

/** One file of the data directory as read: its name, and its text or why there is none. */
export type SourceFile = { file: string; text: string } | { file: string; unreadable: string }

/** The groups and profiles of the data directory, checked and indexed. */
export type Catalog = {
  /** In order of precedence. */
  groups: readonly RankedGroup[]
  groupsById: ReadonlyMap<string, RankedGroup>
  profiles: ReadonlyMap<string, Profile>
  problems: readonly Problem[]
  index: SelectorIndex
}

export type RankedGroup = Group & { rank: number; selectors: ReadonlyMap<string, string> }

type SelectorIndex = {
  byMac: ReadonlyMap<string, readonly RankedGroup[]>
  byUuid: ReadonlyMap<string, readonly RankedGroup[]>
  others: readonly RankedGroup[]
}

/** Why a group was or was not taken. */
export type GroupVerdict = { group: string; matches: boolean; because: string }

/** Checks and indexes group and profile files; a bad file is left out and named in `problems`. */
export function buildCatalog(sources: { groups: SourceFile[]; profiles: SourceFile[] }): Catalog {
  const problems: Problem[] = []
  const profiles = new Map<string, Profile>()
  for (const source of sources.profiles) {
    const profile = parseDocument(Profile, source, problems)
    if (profile) addUnique(profiles, profile, source.file, problems)
  }
  const parsed = new Map<string, Group & { selectors: ReadonlyMap<string, string> }>()
  for (const source of sources.groups) {
    const group = parseDocument(Group, source, problems)
    const selectors = group && normaliseSelectors(group, source.file, problems)
    if (!group || !selectors) continue
    if (!profiles.has(group.profile)) {
      problems.push({ file: source.file, message: `profile ${group.profile} does not exist` })
    }
    addUnique(parsed, { ...group, selectors }, source.file, problems)
  }
  const groups = [...parsed.values()].sort(byPrecedence).map((group, rank) => ({ ...group, rank }))
  return {
    groups,
    groupsById: new Map(groups.map((group) => [group.id, group])),
    profiles,
    problems,
    index: indexGroups(groups),
  }
}

/**
 * The group of a machine: every selector equals the label of that name; more selectors win, ties go to the highest
 * sorted `key=value` string; a group without selectors is the default. A selector with an empty value matches a
 * machine that does not send the label.
 */
export function selectGroup(catalog: Catalog, labels: Labels): RankedGroup | undefined {
  const { byMac, byUuid, others } = catalog.index
  let best: RankedGroup | undefined
  for (const bucket of [byMac.get(labels.get('mac') ?? ''), byUuid.get(labels.get('uuid') ?? ''), others]) {
    const first = bucket?.find((group) => matches(group, labels))
    if (first && (!best || first.rank < best.rank)) best = first
  }
  return best
}

/** For every group, in order of precedence, whether it matches and which selector decided. */
export function explainSelection(catalog: Catalog, labels: Labels): GroupVerdict[] {
  return catalog.groups.map((group) => {
    for (const [key, value] of group.selectors) {
      const label = labels.get(key) ?? ''
      if (label !== value) {
        const because = `${key} is ${label === '' ? 'missing' : label}, the group wants ${value === '' ? 'none' : value}`
        return { group: group.id, matches: false, because }
      }
    }
    const because =
      group.selectors.size === 0
        ? 'default group, no selectors'
        : `all ${group.selectors.size} selectors match`
    return { group: group.id, matches: true, because }
  })
}

function matches(group: RankedGroup, labels: Labels): boolean {
  for (const [key, value] of group.selectors) if ((labels.get(key) ?? '') !== value) return false
  return true
}

function byPrecedence(
  a: { id: string; selectors: ReadonlyMap<string, string> },
  b: { id: string; selectors: ReadonlyMap<string, string> },
): number {
  if (a.selectors.size !== b.selectors.size) return b.selectors.size - a.selectors.size
  const textA = selectorText(a.selectors)
  const textB = selectorText(b.selectors)
  if (textA !== textB) return textA < textB ? 1 : -1
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0
}

const selectorText = (selectors: ReadonlyMap<string, string>): string =>
  [...selectors]
    .map(([key, value]) => `${key}=${value}`)
    .sort()
    .join(',')

function indexGroups(groups: readonly RankedGroup[]): SelectorIndex {
  const byMac = new Map<string, RankedGroup[]>()
  const byUuid = new Map<string, RankedGroup[]>()
  const others: RankedGroup[] = []
  for (const group of groups) {
    const mac = group.selectors.get('mac')
    const uuid = group.selectors.get('uuid')
    if (mac) append(byMac, mac, group)
    else if (uuid) append(byUuid, uuid, group)
    else others.push(group)
  }
  return { byMac, byUuid, others }
}

function append(map: Map<string, RankedGroup[]>, key: string, group: RankedGroup): void {
  const list = map.get(key)
  if (list) list.push(group)
  else map.set(key, [group])
}

function normaliseSelectors(
  group: Group,
  file: string,
  problems: Problem[],
): ReadonlyMap<string, string> | undefined {
  const selectors = new Map<string, string>()
  for (const [key, value] of Object.entries(group.selector ?? {})) {
    const normal = normaliseLabel(key, value)
    if (normal === undefined) {
      problems.push({ file, message: `selector ${key} is not a MAC address: ${value}` })
      return undefined
    }
    selectors.set(key, normal)
  }
  return selectors
}

function parseDocument<T>(
  schema: {
    safeParse(value: unknown): {
      success: boolean
      data?: T
      error?: { issues: { path: PropertyKey[]; message: string }[] }
    }
  },
  source: SourceFile,
  problems: Problem[],
): T | undefined {
  if ('unreadable' in source) {
    problems.push({ file: source.file, message: source.unreadable })
    return undefined
  }
  let value: unknown
  try {
    value = JSON.parse(source.text)
  } catch (error) {
    problems.push({ file: source.file, message: `not JSON: ${(error as Error).message}` })
    return undefined
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  for (const issue of result.error?.issues ?? []) {
    problems.push({
      file: source.file,
      message: `${issue.path.map(String).join('.') || 'document'}: ${issue.message}`,
    })
  }
  return undefined
}

function addUnique<T extends { id: string }>(
  into: Map<string, T>,
  item: T,
  file: string,
  problems: Problem[],
): void {
  if (into.has(item.id)) problems.push({ file, message: `id ${item.id} is already used by another file` })
  else into.set(item.id, item)
}
