// The plan as it comes: rows from outside, steps for the target.
#pragma once

#include <optional>

#include "copy/assembler.h"
#include "copy/layers.h"
#include "copy/mailbox.h"

namespace qb {

// Not thread-safe.
class StepFeed {
 public:
  StepFeed(CopyMailbox& mailbox, const Assembler& assembler, const Layers& layers)
      : mailbox_(mailbox), assembler_(assembler), layers_(layers) {}

  // The next step, or nothing until more rows come. Throws Error(EINVAL) for a plan that is not
  // one of the disk.
  std::optional<Step> next();
  // True when every step of the disk was given, and no more rows may come.
  bool complete() const { return closed_ && assembler_.complete() && !rest_; }

 private:
  CopyMailbox& mailbox_;
  Assembler assembler_;
  Layers layers_;
  std::optional<Step> rest_;  // of a step that was cut
  bool closed_ = false;
};

}  // namespace qb
