// The findings of a comparison.
#pragma once

#include <cstdint>
#include <vector>

namespace qb {

// Shared with lib/compare/job.ts, DO NOT CHANGE one without the other.
enum class FindingKind : uint8_t {
  kDiffers = 0,  // the two disks differ
  kRead = 1,     // one side cannot be read: errnum says why
  kShrank = 2,   // the file of one side is shorter now than when it was opened
  kDamaged = 3,  // a compressed cluster of one side does not expand to a cluster
};

struct Finding {
  FindingKind kind = FindingKind::kDiffers;
  // Guest bytes. kDiffers: whole granules, or the first sector that differs. Else the whole pair.
  uint64_t start = 0;
  uint64_t length = 0;
  unsigned side = 0;  // not of kDiffers
  int errnum = 0;     // kRead only

  uint64_t end() const { return start + length; }
};

// Appends a finding. Areas of differences that touch or overlap become one.
inline void add_finding(std::vector<Finding>& findings, const Finding& found) {
  if (!findings.empty()) {
    Finding& last = findings.back();
    bool joins = found.kind == FindingKind::kDiffers && last.kind == FindingKind::kDiffers &&
                 found.start <= last.end();
    if (joins) {
      if (found.end() > last.end()) last.length = found.end() - last.start;
      return;
    }
  }
  findings.push_back(found);
}

}  // namespace qb
