/** A store member of the initial cluster. */
export type ClusterMember = { name: string; address: string }

export const initialClusterText = (members: readonly ClusterMember[]): string =>
  members.map((member) => `${member.name}=${peerUrl(member.address)}`).join(',')

export const peerUrl = (address: string): string => `https://${address}:2380`
export const clientUrl = (address: string): string => `https://${address}:2379`

export type KvSettings = {
  name: string
  address: string
  members: readonly ClusterMember[]
  state: 'new' | 'existing'
  token: string
}

const pki = '/etc/kiln/pki'

/** `/etc/kiln/kv.env`: etcd's variables for kiln-kv on a store member; timeouts as measured for emulated machines. */
export function kvEnvironment(kv: KvSettings): string {
  const variables: [string, string | number][] = [
    ['NAME', kv.name],
    ['DATA_DIR', '/var/lib/kiln/kv'],
    ['INITIAL_CLUSTER', initialClusterText(kv.members)],
    ['INITIAL_CLUSTER_STATE', kv.state],
    ['INITIAL_CLUSTER_TOKEN', kv.token],
    ['INITIAL_ADVERTISE_PEER_URLS', peerUrl(kv.address)],
    ['LISTEN_PEER_URLS', peerUrl(kv.address)],
    ['LISTEN_CLIENT_URLS', 'https://0.0.0.0:2379'],
    ['ADVERTISE_CLIENT_URLS', clientUrl(kv.address)],
    ['CERT_FILE', `${pki}/machine.pem`],
    ['KEY_FILE', `${pki}/machine.key`],
    ['TRUSTED_CA_FILE', `${pki}/ca.pem`],
    ['CLIENT_CERT_AUTH', 'true'],
    ['PEER_CERT_FILE', `${pki}/machine.pem`],
    ['PEER_KEY_FILE', `${pki}/machine.key`],
    ['PEER_TRUSTED_CA_FILE', `${pki}/ca.pem`],
    ['PEER_CLIENT_CERT_AUTH', 'true'],
    ['HEARTBEAT_INTERVAL', 500],
    ['ELECTION_TIMEOUT', 5000],
  ]
  return variables.map(([name, value]) => `ETCD_${name}=${value}\n`).join('')
}
