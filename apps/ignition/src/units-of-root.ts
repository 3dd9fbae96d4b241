import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { describeUnitAction, type InstalledUnits, planUnits } from '@kiln/units'
import { installs } from './options.ts'
import type { Run } from './run.ts'
import type { TargetRoot } from './target-root.ts'

const folders = ['/etc/systemd/system', '/usr/lib/systemd/system']

/** Units, drop-ins, presets, masks and enabling links. */
export function applyUnits(config: IgnitionConfig, target: TargetRoot, run: Run): void {
  const units = config.systemd?.units ?? []
  if (units.length === 0) return
  const plan = planUnits(units, installedUnits(target), { links: installs(run.options) })
  for (const warning of plan.warnings) run.warn(`files: ${warning}`)
  for (const action of plan.actions) {
    run.reporter.say(`files: ${describeUnitAction(action)}`)
    switch (action.kind) {
      case 'write':
        if (isLink(target, action.path)) target.remove(action.path)
        target.write(action.path, action.contents, 0o644, { uid: 0, gid: 0 })
        break
      case 'link':
        target.remove(action.path)
        target.folder(dirname(action.path), 0o755)
        symlinkSync(action.target, target.place(action.path))
        break
      case 'remove':
        target.remove(action.path)
    }
    run.acted(describeUnitAction(action))
  }
}

const isLink = (target: TargetRoot, path: string): boolean =>
  lstatSync(target.place(path), { throwIfNoEntry: false })?.isSymbolicLink() === true

/** Units as the root has them, /etc before /usr/lib. */
function installedUnits(target: TargetRoot): InstalledUnits {
  const list = (path: string): string[] => {
    const full = target.place(path)
    return existsSync(full) && lstatSync(full).isDirectory() ? readdirSync(full) : []
  }
  const own = folders[0]!
  return {
    texts(name) {
      const files = folders
        .map((folder) => target.place(`${folder}/${name}`))
        .filter((path) => existsSync(path))
      const dropins = folders.flatMap((folder) =>
        list(`${folder}/${name}.d`)
          .filter((file) => file.endsWith('.conf'))
          .map((file) => target.place(`${folder}/${name}.d/${file}`)),
      )
      return [...files.slice(0, 1), ...dropins].map((path) => readFileSync(path, 'utf8'))
    },
    enabledBy: (name) =>
      list(own)
        .filter((folder) => /\.(wants|requires|upholds)$/.test(folder))
        .flatMap((folder) =>
          list(`${own}/${folder}`).flatMap((file) => (file === name ? [join(own, folder, file)] : [])),
        ),
    masked: (name) => {
      const full = target.place(`${own}/${name}`)
      return (
        lstatSync(full, { throwIfNoEntry: false })?.isSymbolicLink() === true &&
        readlinkSync(full) === '/dev/null'
      )
    },
  }
}
