export { stories } from './stories.ts'
export type { Story, StoryContext } from './story.ts'
