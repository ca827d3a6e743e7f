#include "copy/step_feed.h"

#include <cerrno>
#include <utility>
#include <vector>

#include "base/error.h"

namespace qb {

std::optional<Step> StepFeed::next() {
  while (true) {
    std::optional<Step> step = rest_ ? std::exchange(rest_, std::nullopt) : assembler_.next();
    if (step) {
      rest_ = layers_.attach(*step);
      return step;
    }
    if (closed_) return std::nullopt;
    std::vector<Row> rows;
    switch (mailbox_.take(rows)) {
      case CopyMailbox::Inbox::kItems:
        layers_.take(rows);
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
