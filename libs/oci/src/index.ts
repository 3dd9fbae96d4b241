export { type Download, download } from './download.ts'
export { exportDockerArchive, exportLayout, exportTree } from './image-export.ts'
export { type ImageSource, openArchive, openLayout } from './image-source.ts'
export { type ImageContent, type LayerEntry, writeImageArchive } from './image-writer.ts'
export { type ImageReference, parseImageReference, type RegistryReference } from './reference.ts'
export { type AuthFile, readAuthFile } from './registry/credentials.ts'
export { type PulledImage, type PullOptions, type PullProgress, pullImage } from './registry/pull.ts'
export { noRegistries, type Registries, readRegistries } from './registry/registries.ts'
export {
  type Admission,
  chainIds,
  type ImageStore,
  type ListedImage,
  openImageStore,
  type StoredImage,
} from './store.ts'
export { type BlobProblem, checkStore, type Finding, verifyImage } from './store-check.ts'
export {
  isLocalKind,
  type Policy,
  type Rule,
  readPolicy,
  readPrefix,
  readPublicKey,
  ruleFor,
  trustedKeys,
  withRule,
  writePolicy,
} from './trust/policy.ts'
