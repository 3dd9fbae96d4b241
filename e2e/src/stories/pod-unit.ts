import { storeKeys } from '@kiln/schemas'
import type { Story } from '../story.ts'
import { expect, until } from '../waiting.ts'

/** The template `kiln-pod@.service` of docs/guides/pod-units.md. */
export const podUnit: Story = {
  name: 'pod-unit',
  summary: 'a unit is started once its pod is ready, and the pod goes with it',
  budgetSeconds: 60,
  timeoutSeconds: 600,
  needs: ['vms'],
  fixture: 'one-machine',
  async run(context) {
    const { signal } = context
    const cluster = await context.cluster()
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'owned' },
      spec: {
        restartPolicy: 'Never',
        containers: [
          {
            name: 'web',
            image: 'boot://pods/hello.tar',
            readinessProbe: { tcpSocket: { port: 8000 }, periodSeconds: 1 },
          },
        ],
      },
    }
    const file = '/etc/kiln/pod-units/owned.yaml'
    const start = `mkdir -p /etc/kiln/pod-units; echo '${JSON.stringify(pod)}' >${file}; systemctl start kiln-pod@owned; systemctl is-active kiln-pod@owned`
    const started = await cluster.shell('node1', start, { signal, timeoutMs: 180_000 })
    expect(started.code === 0, `the unit is started once the pod is ready: ${started.output}`)
    const at = { machine: 'node1', pod: 'owned' }
    const status = async (): Promise<string> => (await cluster.store.get(storeKeys.podStatus(at)))?.text ?? ''
    await until(
      'the store has the pod as ready',
      { timeoutMs: 30_000, signal },
      async () => (await status()).includes('"ready":true') || undefined,
    )
    await cluster.shell('node1', `systemctl stop kiln-pod@owned; rm ${file}`, { signal, timeoutMs: 120_000 })
    await until('the pod went with its unit', { timeoutMs: 30_000, signal }, async () =>
      (await status()) === '' ? true : undefined,
    )
  },
}
