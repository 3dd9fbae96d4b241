import type { AwsCredentials } from '../sigv4.ts'
import { keyAttributes, type Platform, type PlatformPorts, parsedJson, textsAt } from './platform.ts'

const service = 'http://169.254.169.254'
const metadata = `${service}/2019-10-01/meta-data`
const tokenSeconds = '21600'

/** The instance metadata service, version 2: every request carries a token (AWS, "Use IMDSv2"). */
async function tokenHeaders(ports: PlatformPorts): Promise<Record<string, string>> {
  const headers = { 'X-aws-ec2-metadata-token-ttl-seconds': tokenSeconds }
  const token = await ports.get(`${service}/latest/api/token`, headers, 'PUT')
  return token ? { 'X-aws-ec2-metadata-token': token.toString('utf8') } : {}
}

export const aws: Platform = {
  needsNetwork: true,
  async config(ports) {
    const source = `${service}/2019-10-01/user-data`
    const bytes = await ports.get(source, await tokenHeaders(ports))
    return bytes && { bytes, source }
  },
  async attributes(ports) {
    const headers = await tokenHeaders(ports)
    const names = {
      HOSTNAME: '/hostname',
      INSTANCE_ID: '/instance-id',
      INSTANCE_TYPE: '/instance-type',
      IPV4_LOCAL: '/local-ipv4',
      IPV4_PUBLIC: '/public-ipv4',
      ZONE: '/placement/availability-zone',
      REGION: '/placement/region',
    }
    const list = (await ports.get(`${metadata}/public-keys/`, headers))?.toString('utf8') ?? ''
    const keys: string[] = []
    for (const index of list.match(/^\d+(?==)/gm) ?? []) {
      const key = await ports.get(`${metadata}/public-keys/${index}/openssh-key`, headers)
      if (key) keys.push(key.toString('utf8'))
    }
    return { ...(await textsAt(ports, metadata, names, headers)), ...keyAttributes(keys) }
  },
  async identity(ports) {
    const headers = await tokenHeaders(ports)
    const awsRegion = (await ports.get(`${metadata}/placement/region`, headers))?.toString('utf8')
    const roles = `${metadata}/iam/security-credentials/`
    const role = (await ports.get(roles, headers))?.toString('utf8').trim()
    if (!role) return { awsRegion }
    type Given = { AccessKeyId: string; SecretAccessKey: string; Token?: string }
    const given = parsedJson<Given>(await ports.get(`${roles}${role}`, headers))
    const awsCredentials: AwsCredentials | undefined = given && {
      accessKey: given.AccessKeyId,
      secretKey: given.SecretAccessKey,
      sessionToken: given.Token,
    }
    return { awsRegion, awsCredentials }
  },
}
