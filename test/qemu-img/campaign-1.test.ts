import { campaign } from '../support/campaign.ts'

// Always the same images: a change must not fail for what it has nothing to do with.
campaign(101, 150)
