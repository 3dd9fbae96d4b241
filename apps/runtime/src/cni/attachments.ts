import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { ProcessId } from '@kiln/linux'
import { atomicWrite, type Log, syncDirectory } from '@kiln/service'
import type { ChainState } from './chain.ts'

/**
 * A network of a pod's sandbox: written before its first plug-in runs, and removed after the last is undone. While it is
 * neither `ready` nor gone, plug-ins of an earlier daemon may be running.
 */
export type Attachment = ChainState & {
  formatVersion: 1
  uid: string
  pod: string
  /** Its place among the pod's networks. */
  place: number
  sandbox: ProcessId
  /** Of the sandbox: pids and start times may come again in another boot. */
  bootId: string
  state: 'adding' | 'ready' | 'deleting'
  /** How often the plug-ins refused to undo it while its sandbox was gone. */
  refusals: number
}

/** `cni/attachments/<pod>/<container>.<place>.json`; one folder a pod. */
export type Attachments = {
  /** Of one pod, the last first; all of them without a uid. */
  list(uid?: string): Promise<Attachment[]>
  save(attachment: Attachment): Promise<void>
  remove(attachment: Attachment): Promise<void>
}

/** A uid may hold anything, and be as long as a file's name may not. */
export const folderName = (uid: string): string => createHash('sha256').update(uid).digest('hex').slice(0, 24)

export function openAttachments(folder: string, log: Log): Attachments {
  const file = ({ uid, containerId, place }: Attachment): string =>
    join(folder, folderName(uid), `${containerId}.${place}.json`)
  const names = async (path: string): Promise<string[]> =>
    (
      await readdir(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return []
        throw error
      })
    ).sort()
  return {
    list: async (uid) => {
      const all: Attachment[] = []
      for (const pod of uid === undefined ? await names(folder) : [folderName(uid)]) {
        for (const name of await names(join(folder, pod))) {
          if (!name.endsWith('.json')) continue
          try {
            const attachment = JSON.parse(await readFile(join(folder, pod, name), 'utf8')) as Attachment
            if (attachment.formatVersion !== 1) throw new Error('another format')
            all.push(attachment)
          } catch (error) {
            log.warn(
              { file: join(folder, pod, name), error },
              'a network of a pod is unreadable and left alone',
            )
          }
        }
      }
      return all.reverse()
    },
    save: async (attachment) => {
      const path = file(attachment)
      await mkdir(dirname(path), { recursive: true, mode: 0o700 })
      await syncDirectory(folder)
      await atomicWrite(path, `${JSON.stringify(attachment)}\n`, { mode: 0o600 })
    },
    remove: async (attachment) => {
      const path = file(attachment)
      await rm(path, { force: true })
      // Others of the pod may be there.
      await rmdir(dirname(path)).catch(() => undefined)
    },
  }
}
