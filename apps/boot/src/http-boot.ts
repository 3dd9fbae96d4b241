import fastifyStatic from '@fastify/static'
import { Fault } from '@kiln/service'
import type { FastifyInstance } from 'fastify'
import type { BootContext } from './boot-context.ts'
import { ignitionConfig, ipxeScript } from './boot-flow.ts'
import { explainSelection, selectGroup } from './catalog.ts'
import { entryScript } from './ipxe-script.ts'
import type { Labels } from './labels.ts'
import { metadataText } from './metadata-text.ts'
import { basesOf, requestLabels } from './request-origin.ts'

const textType = 'text/plain; charset=utf-8'

/** matchbox's paths: scripts, configs, metadata, assets. */
export async function bootRoutes(app: FastifyInstance, context: BootContext): Promise<void> {
  app.get('/', (_request, reply) => reply.type(textType).send('kiln-boot\n'))
  for (const path of ['/boot.ipxe', '/boot.ipxe.0']) {
    app.get(path, (_request, reply) => reply.type(textType).send(entryScript()))
  }
  app.get('/ipxe', async (request, reply) => {
    const text = await ipxeScript(context, requestLabels(request), basesOf(context, request))
    return reply.type(textType).send(text)
  })
  app.get('/ignition', async (request, reply) => {
    const config = await ignitionConfig(context, requestLabels(request), basesOf(context, request))
    return reply.header('cache-control', 'no-store').type('application/json').send(JSON.stringify(config))
  })
  app.get('/generic', (request, reply) =>
    reply.type(textType).send(genericText(context, requestLabels(request))),
  )
  app.get('/metadata', (request, reply) => {
    const labels = requestLabels(request)
    const group = selectGroup(context.data.catalog, labels)
    if (!group) throw new Fault('GROUP_UNKNOWN', 'no group matches')
    return reply.type(textType).send(metadataText(group, labels))
  })
  app.get('/v1/explain', (request) => explainSelection(context.data.catalog, requestLabels(request)))

  if (context.settings.assetsPath !== '') {
    await app.register(fastifyStatic, {
      root: context.settings.assetsPath,
      prefix: '/assets/',
      index: false,
      dotfiles: 'deny',
      cacheControl: false,
    })
  }
}

function genericText(context: BootContext, labels: Labels): string {
  const group = selectGroup(context.data.catalog, labels)
  if (!group) throw new Fault('GROUP_UNKNOWN', 'no group matches')
  const id = context.data.catalog.profiles.get(group.profile)?.generic_id
  if (!id) throw new Fault('CONFIG_MISSING', `profile ${group.profile} has no generic_id`)
  const config = context.data.genericConfig(id)
  switch (config.kind) {
    case 'text':
      return config.text
    case 'missing':
      throw new Fault('CONFIG_MISSING', `generic/${id} does not exist`)
    case 'refused':
      throw new Fault(config.code, `generic/${id}: ${config.reason}`)
  }
}
