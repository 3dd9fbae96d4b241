import { badConfig } from './stories/bad-config.ts'
import { badHang, badPanic, badUnhealthy } from './stories/bad-image.ts'
import { badVerity } from './stories/bad-verity.ts'
import { lostLeader } from './stories/cluster.ts'
import { corruptPart } from './stories/corrupt-part.ts'
import { dataDisks } from './stories/data-disks.ts'
import { dnsmasqTap } from './stories/dnsmasq-tap.ts'
import { fullDisk } from './stories/full-disk.ts'
import { install } from './stories/install.ts'
import { ociV2, ociV2Full } from './stories/oci-v2.ts'
import { podService } from './stories/pod-service.ts'
import { podUnit } from './stories/pod-unit.ts'
import { powerCut } from './stories/power-cut.ts'
import { reprovision } from './stories/reprovision.ts'
import { snapshot } from './stories/snapshot.ts'
import { unknownMachine } from './stories/unknown-machine.ts'
import { update } from './stories/update.ts'
import type { Story } from './story.ts'

/** All stories, in the order they run; those of one fixture run in a row. */
export const stories: readonly Story[] = [
  fullDisk,
  unknownMachine,
  badConfig,
  install,
  ociV2,
  ociV2Full,
  corruptPart,
  podUnit,
  badUnhealthy,
  badPanic,
  badHang,
  podService,
  snapshot,
  lostLeader,
  badVerity,
  update,
  powerCut,
  dataDisks,
  reprovision,
  dnsmasqTap,
]
