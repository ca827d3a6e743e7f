#include "copy/step_feed.h"

#include <cerrno>
#include <vector>

#include "base/error.h"

namespace qb {

std::optional<Step> StepFeed::next() {
  while (true) {
    if (std::optional<Step> step = assembler_.next()) return step;
    if (closed_) return std::nullopt;
    std::vector<Row> rows;
    switch (mailbox_.take(rows)) {
      case CopyMailbox::Inbox::kItems:
        assembler_.feed(rows);
        break;
      case CopyMailbox::Inbox::kNothingYet:
        return std::nullopt;
      case CopyMailbox::Inbox::kClosed:
        closed_ = true;
        if (!assembler_.complete()) throw Error(EINVAL, "end of the plan");
        return std::nullopt;
    }
  }
}

}  // namespace qb
