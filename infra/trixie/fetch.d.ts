export type TrixieOptions = {
  cacheHome?: string | undefined
  home?: string
}
/** Folder with the unpacked content of a package; fetched at the first call, from the cache afterwards. */
export declare function trixiePackage(name: string, options?: TrixieOptions): Promise<string>
