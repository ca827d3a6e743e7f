import { campaign } from '../support/campaign.ts'
import { effort } from '../support/effort.ts'

// Always the same images: a change must not fail for what it has nothing to do with.
campaign(101, effort(8, 150))
