// The inside of a running copy: everything that lives only on the job's thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/file.h"
#include "base/workers.h"
#include "copy/counters.h"
#include "copy/delivery.h"
#include "copy/endpoints.h"
#include "copy/mailbox.h"
#include "copy/preparer.h"
#include "copy/read_ahead.h"
#include "copy/sink.h"
#include "copy/spec.h"
#include "copy/step_feed.h"
#include "copy/store.h"
#include "copy/window.h"
#include "image/disk_writer.h"
#include "io/queue.h"

namespace qb {

// Not thread-safe; all that it is made of must outlive it.
class Pipeline {
 public:
  // Maximum requests with the engine at once.
  static unsigned engine_depth(const CopySpec& spec);

  // `files`: of the spec's endpoints; those of the sources are closed with it. Throws Error when
  // the target cannot be such an image.
  Pipeline(const CopySpec& spec, EndpointFiles& files, CopyMailbox& mailbox, LiveCounters& counters,
           Engine& engine);

  // Runs until the target is complete. Returns the hashes that were wanted.
  // Throws CopyError or Error once no request is under way any more: descriptors and buffers may be
  // closed and freed then.
  Checksums run();

 private:
  void invalidate_old_image();
  void copy();
  void finish_image();
  void finish_hash();
  void follow_commands();
  void start_reads();
  void process_completions();
  void complete(Transfer* transfer);
  void collect_prepared();
  bool deliver_ready();
  void drain();
  void sync();
  void abandon();
  void discard_completions();

  const CopySpec& spec_;
  const std::optional<File>& target_;
  CopyMailbox& mailbox_;
  // The order of these matters: `queue_` waits for the kernel before the buffers are freed and the
  // descriptors of `stores_` are closed, and `workers_` for its tasks before all of them.
  BufferPool pool_;
  Window window_;
  std::vector<Store> stores_;
  Queue queue_;
  std::unique_ptr<Sink> sink_;
  std::unique_ptr<DiskWriter> writer_;
  StepFeed steps_;
  ReadAhead read_ahead_;
  Preparer preparer_;
  Delivery delivery_;
  std::vector<Transfer*> done_;  // come back and not handled yet
  Workers workers_;
};

}  // namespace qb
