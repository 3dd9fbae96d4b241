import * as z from 'zod'
import { HostName } from './network-names.ts'
import { quantity } from './quantity.ts'

const withoutClimbing = (path: string): boolean => !path.split('/').includes('..')

export const absolutePath = z
  .string()
  .max(4096)
  .regex(/^\//, 'must be an absolute path')
  .refine(withoutClimbing, 'must not contain ..')

/** A path below a volume, with plain names only. */
const pathBelow = z
  .string()
  .min(1)
  .max(4096)
  .refine((path) => path.split('/').every((part) => part !== '' && part !== '.'), {
    message: 'must be a relative path without empty parts',
  })
  .refine(withoutClimbing, 'must not contain ..')

export const VolumeMount = z.strictObject({
  name: HostName,
  mountPath: absolutePath.refine((path) => path !== '/', 'must not be the root'),
  readOnly: z.boolean().default(false),
  /** What of the volume is mounted; a folder is made if it is missing. No symlink may lead there. */
  subPath: pathBelow.optional(),
  /** Whether mounts that the machine makes below the volume later are seen. */
  mountPropagation: z
    .enum(['None', 'HostToContainer'], {
      error: 'must be None or HostToContainer: mounts of containers do not reach the machine',
    })
    .default('None'),
})
export type VolumeMount = z.output<typeof VolumeMount>

const fileMode = z.number().int().min(0).max(0o777)

/** Kubernetes' `v1.ConfigMapVolumeSource`, of the files that the machine's own configuration has under that name. */
const ConfigMap = z.strictObject({
  name: HostName,
  items: z
    .array(
      z.strictObject({
        key: z.string().regex(/^(?!\.{1,2}$)[A-Za-z0-9._-]{1,253}$/, 'must be the name of a key'),
        path: pathBelow,
        mode: fileMode.optional(),
      }),
    )
    .max(256)
    .optional(),
  defaultMode: fileMode.default(0o644),
  optional: z.boolean().default(false),
})
export type PodConfigMap = z.output<typeof ConfigMap>

const kinds = ['emptyDir', 'hostPath', 'configMap'] as const

export const Volume = z
  .strictObject({
    name: HostName,
    emptyDir: z
      .strictObject({
        medium: z.enum(['', 'Memory']).default(''),
        sizeLimit: quantity(4096, '4Ki').optional(),
      })
      .nullish(),
    hostPath: z
      .strictObject({
        path: absolutePath,
        type: z.enum(['', 'Directory', 'DirectoryOrCreate', 'File']).default(''),
      })
      .optional(),
    configMap: ConfigMap.optional(),
  })
  .refine((volume) => kinds.filter((kind) => volume[kind] !== undefined).length === 1, {
    message: `needs exactly one of ${kinds.join(', ')}`,
  })
export type PodVolume = z.output<typeof Volume>
