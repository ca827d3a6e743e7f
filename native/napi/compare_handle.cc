#include "napi/compare_handle.h"

#include <optional>
#include <utility>
#include <vector>

#include "compare/job.h"
#include "napi/copy_spec.h"
#include "napi/errors.h"
#include "napi/job_handle.h"
#include "napi/values.h"

namespace qb {

namespace {

const napi_type_tag kTag = handle_tag(0x71636f7732636d70);

// Numbers of a finding: kind, start, length, side, errno. Shared with lib/compare/job.ts, DO NOT
// CHANGE one without the other.
constexpr size_t kFindingColumns = 5;

class Handle : public JobHandle<CompareJob> {
 public:
  Handle(Napi::Env env, const CompareSpec& spec)
      : JobHandle(env, std::make_unique<CompareJob>(spec)) {}

 private:
  std::optional<Napi::Value> news() override {
    // Before the findings: none of those that come later lies in front of it.
    uint64_t position = job().position();
    std::vector<Finding> findings = job().take_findings();
    if (findings.empty() && position == told_) return std::nullopt;
    told_ = position;
    Napi::Object object = Napi::Object::New(env());
    object.Set("position", static_cast<double>(position));
    object.Set("findings", numbers(findings.size() * kFindingColumns, [&](size_t i) {
                 const Finding& finding = findings[i / kFindingColumns];
                 const uint64_t columns[kFindingColumns] = {
                     static_cast<uint64_t>(finding.kind), finding.start, finding.length,
                     finding.side, static_cast<uint64_t>(finding.errnum)};
                 return columns[i % kFindingColumns];
               }));
    return object;
  }

  Napi::Value result() override {
    Napi::Object object = Napi::Object::New(env());
    object.Set("bytesRead", static_cast<double>(job().bytes_read()));
    object.Set("engine", job().engine_name());
    return object;
  }

  // The plan may wait for the comparison so far.
  bool holds_for_events() const override { return true; }

  uint64_t told_ = 0;
};

Handle& handle_of(const Napi::Value& value) {
  return taken_handle<Handle>(value, kTag, "a comparison");
}

Napi::Value start(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    CompareSpec spec = compare_spec_of(info[0].As<Napi::Object>());
    auto handle = std::make_shared<Handle>(info.Env(), spec);
    return give_handle(info.Env(), std::move(handle), "qcow2-backup compare", kTag);
  });
}

Napi::Value push(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    Napi::Float64Array columns = doubles(info[1]);
    auto files = info[2].As<Napi::Number>().Uint32Value();
    auto pairs = unpack_pairs(columns.Data(), columns.ElementLength() / (2 * kRowColumns), files);
    return Napi::Value(handle_of(info[0]).push(std::move(pairs)));
  });
}

Napi::Value finish(const Napi::CallbackInfo& info) {
  return handle_of(info[0]).finish();
}

Napi::Value events(const Napi::CallbackInfo& info) {
  return handle_of(info[0]).events();
}

void cancel(const Napi::CallbackInfo& info) {
  handle_of(info[0]).cancel();
}

}  // namespace

void export_compare(Napi::Env env, Napi::Object exports) {
  export_function<start>(env, exports, "compareStart");
  export_function<push>(env, exports, "comparePush");
  export_function<finish>(env, exports, "compareFinish");
  export_function<events>(env, exports, "compareEvents");
  export_function<cancel>(env, exports, "compareCancel");
}

}  // namespace qb
