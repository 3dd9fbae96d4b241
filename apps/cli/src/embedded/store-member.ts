import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { issueCertificate, type KeyPair } from '@kiln/pki'
import { certificateLife } from '@kiln/pki/machine'
import { atomicWrite, type Log } from '@kiln/service'
import { ServiceProcess } from '../lab/service-process.ts'
import type { LabMachine, LabRecord, StateFolder } from '../lab/state-folder.ts'
import { programCommand } from '../programs.ts'

const certificateDays = 365

/** A member of an embedded cluster's store: kiln-kv on the loopback, with TLS to clients and peers. */
export async function storeMember(
  at: { state: StateFolder; lab: LabRecord; machine: LabMachine },
  log: Log,
  changed: () => void,
): Promise<ServiceProcess> {
  const { state, lab, machine } = at
  const folder = join(state.embedded, `store-${machine.name}`)
  const pki = join(folder, 'pki')
  await mkdir(pki, { recursive: true, mode: 0o700 })
  await certifyMember(state, pki, machine.name)
  const { command, args } = programCommand('kiln-kv')
  return new ServiceProcess(
    {
      name: `store-${machine.name}`,
      command,
      args: [...args, ...memberFlags(lab, machine, { data: join(folder, 'data'), pki })],
      logPath: join(folder, 'store.log'),
    },
    log,
    changed,
  )
}

async function certifyMember(state: StateFolder, pki: string, name: string): Promise<void> {
  const present = join(pki, 'member.pem')
  if (existsSync(present) && Date.now() < certificateLife(await readFile(present, 'utf8')).renewFromMs) return
  const read = (file: string): Promise<string> => readFile(join(state.adminPki, file), 'utf8')
  const ca: KeyPair = { certificate: await read('ca.pem'), key: await read('ca.key') }
  const member = await issueCertificate(ca, {
    commonName: `store-${name}`,
    names: ['127.0.0.1', 'localhost'],
    use: ['server', 'client'],
    days: certificateDays,
    now: new Date(),
  })
  await writeFile(join(pki, 'ca.pem'), ca.certificate)
  await atomicWrite(join(pki, 'member.key'), member.key, { mode: 0o600 })
  await atomicWrite(join(pki, 'member.pem'), member.certificate)
}

/** etcd's flags for a member of a cluster on one loopback. */
export function memberFlags(
  lab: LabRecord,
  machine: LabMachine,
  paths: { data: string; pki: string },
): string[] {
  const peerUrl = (of: LabMachine): string => `https://127.0.0.1:${of.peerPort}`
  const clientUrl = `https://127.0.0.1:${machine.storePort}`
  const file = (name: string): string => join(paths.pki, name)
  return [
    ['--name', machine.name],
    ['--data-dir', paths.data],
    ['--listen-client-urls', clientUrl],
    ['--advertise-client-urls', clientUrl],
    ['--listen-peer-urls', peerUrl(machine)],
    ['--initial-advertise-peer-urls', peerUrl(machine)],
    ['--initial-cluster', lab.machines.map((one) => `${one.name}=${peerUrl(one)}`).join(',')],
    ['--initial-cluster-token', `kiln-${lab.createdAt}`],
    ['--cert-file', file('member.pem'), '--key-file', file('member.key')],
    ['--trusted-ca-file', file('ca.pem'), '--client-cert-auth'],
    ['--peer-cert-file', file('member.pem'), '--peer-key-file', file('member.key')],
    ['--peer-trusted-ca-file', file('ca.pem'), '--peer-client-cert-auth'],
  ].flat()
}
