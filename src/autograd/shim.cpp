// The part of `autograd` that must be C++: a backward node that owns a Rust closure, and a handful of libtorch calls
// that tch has no name for. Everything here is reached through `ffi.rs`; no function lets an exception cross into Rust.
//
// Conventions: a `Tensor*` handed to Rust is owned by Rust (tch::Tensor::from_ptr), one received is borrowed unless the
// comment says otherwise. Functions return 0, or 1 with the message in `thruway_last_error`.

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

using at::Tensor;
using torch::autograd::deleteNode;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

namespace {

// Calls the closure. grads (null: undefined) and saved become Rust's; out receives owned tensors (null: no gradient).
// Nonzero: failed, with the reason in error.
using BackwardFn = int (*)(void* closure, Tensor** grads, size_t n_grads, Tensor** saved, size_t n_saved,
                           const bool* needs, Tensor** out, size_t n_inputs, std::string* error);
using DropFn = void (*)(void* closure);

thread_local std::string last_error;

template <typename F>
int guarded(F f) noexcept {
  try {
    f();
    return 0;
  } catch (const c10::Error& e) {
    last_error = e.what_without_backtrace();
  } catch (const std::exception& e) {
    last_error = e.what();
  } catch (...) {
    last_error = "unknown C++ exception";
  }
  return 1;
}

// Another handle on the same numbers, outside any graph. It shares the version counter, so that a later in-place
// change of either is seen by whoever saved the other.
Tensor detached_alias(const Tensor& t) {
  auto* impl = t.unsafeGetTensorImpl();
  return Tensor(impl->shallow_copy_and_detach(impl->version_counter(), /*allow_tensor_metadata_change=*/true));
}

// set_gradient_edge writes into the TensorImpl, which all handles of a tensor share: whatever gets an edge from us must
// have an impl of its own, or an unrelated tensor would silently join the graph.
Tensor own_handle(const Tensor& t) {
  return t.use_count() > 1 || t.requires_grad() || t.is_view() ? detached_alias(t) : t;
}

// Saved without its graph: no reference cycle through an output, no chain of graphs kept alive by a saved tensor.
SavedVariable snapshot(const Tensor& t) {
  return t.defined() ? SavedVariable(detached_alias(t), /*is_output=*/false) : SavedVariable();
}

struct RustNode final : Node {
  std::string label;
  void* closure;
  BackwardFn backward;
  DropFn drop;
  std::vector<SavedVariable> saved;

  RustNode(std::string label, void* closure, BackwardFn backward, DropFn drop, edge_list&& edges)
      : Node(std::move(edges)), label(std::move(label)), closure(closure), backward(backward), drop(drop) {}

  std::string name() const override { return label; }

  // Called after a backward without keep_graph, so that memory goes as the backward proceeds, and by deleteNode.
  void release_variables() override {
    std::vector<SavedVariable> old_saved;
    void* old_closure = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      std::swap(saved, old_saved);
      std::swap(closure, old_closure);
    }
    if (old_closure) drop(old_closure);  // foreign code: not under the lock
  }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!closure) throw std::runtime_error(label + ": " + torch::autograd::ERR_BACKWARD_TWICE);
    const size_t n = num_outputs();
    variable_list result(n);
    if (std::none_of(grads.begin(), grads.end(), [](const Tensor& g) { return g.defined(); })) return result;
    const bool create_graph = at::GradMode::is_enabled();
    // What a second derivative would have to pass through: this node's inputs, and the incoming gradients.
    edge_list beyond;
    if (create_graph) {
      beyond = next_edges();
      for (const auto& g : grads)
        if (g.defined() && g.requires_grad()) beyond.push_back(torch::autograd::impl::gradient_edge(g));
    }
    run_closure(grads, result);
    if (create_graph) refuse_double_backward(result, std::move(beyond));
    return result;
  }

 private:
  void run_closure(variable_list& grads, variable_list& result) {
    at::AutoGradMode no_grad(false);  // restores the mode whatever the closure does to it
    const size_t n = result.size();
    variable_list unpacked;
    unpacked.reserve(saved.size());
    try {
      for (const auto& s : saved) unpacked.push_back(s.unpack());
    } catch (const c10::Error& e) {  // changed in place
      throw std::runtime_error(label + ": " + e.what_without_backtrace());
    }
    c10::SmallVector<Tensor*, 4> g, s, out(n, nullptr);
    c10::SmallVector<bool, 4> needs;
    c10::SmallVector<c10::StorageImpl*, 4> incoming;
    for (auto& t : grads) {
      if (t.defined() && t.has_storage()) incoming.push_back(t.storage().unsafeGetStorageImpl());
      g.push_back(t.defined() ? new Tensor(std::move(t)) : nullptr);
    }
    for (auto& t : unpacked) s.push_back(new Tensor(std::move(t)));
    for (size_t i = 0; i < n; ++i) needs.push_back(task_should_compute_output(i));
    std::string error;
    const int failed =
        backward(closure, g.data(), g.size(), s.data(), s.size(), needs.data(), out.data(), n, &error);
    for (size_t i = 0; i < n; ++i) {
      if (!out[i]) continue;
      result[i] = std::move(*out[i]);
      delete out[i];
    }
    if (failed) throw std::runtime_error(label + ": " + error);
    for (auto& r : result) {
      if (!r.defined()) continue;
      if (r.requires_grad()) r = detached_alias(r);
      // A leaf may adopt the gradient as its `.grad` without a copy. Numbers that somebody else holds too (a saved
      // tensor returned as it is) would then change under both; an incoming gradient passed on is libtorch's custom.
      if (r.has_storage() && r.storage().use_count() > 1 &&
          std::find(incoming.begin(), incoming.end(), r.storage().unsafeGetStorageImpl()) == incoming.end())
        r = r.clone();
    }
  }

  // The error node lies ON the path to the inputs, so that run_backward(inputs=...) meets it as well.
  void refuse_double_backward(variable_list& result, edge_list&& beyond) {
    std::shared_ptr<Node> error(
        new torch::autograd::Error(label + ": double backward is not supported", std::move(beyond)), deleteNode);
    for (auto& r : result) {
      if (!r.defined() || !torch::autograd::isDifferentiableType(r.scalar_type())) continue;
      r = own_handle(r);
      torch::autograd::set_history(r, error);
    }
  }
};

bool contains(const int64_t* v, size_t n, size_t x) { return std::find(v, v + n, static_cast<int64_t>(x)) != v + n; }

at::Device device_of(int index) { return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, index); }

}  // namespace

extern "C" {

const char* thruway_last_error() { return last_error.c_str(); }

void thruway_set_string(std::string* s, const char* bytes, size_t n) { s->assign(bytes, n); }

// Hangs a node under `outputs` (which the caller computed without a graph) and on `inputs`. Owns `closure` from here on;
// without grad mode or an input that requires a gradient it is dropped at once.
int thruway_make_node(const char* name, size_t name_len, void* closure, BackwardFn backward, DropFn drop,
                      Tensor* const* inputs, size_t n_inputs, Tensor* const* outputs, size_t n_outputs,
                      const int64_t* non_differentiable, size_t n_non_differentiable, Tensor* const* saved,
                      size_t n_saved, const int64_t* saved_outputs, size_t n_saved_outputs) {
  return guarded([&] {
    const bool record = at::GradMode::is_enabled() &&
            std::any_of(inputs, inputs + n_inputs, [](const Tensor* t) { return t->defined() && t->requires_grad(); });
    if (!record) {
      drop(closure);
      for (size_t i = 0; i < n_outputs; ++i)
        if (outputs[i]->defined() && outputs[i]->requires_grad()) *outputs[i] = detached_alias(*outputs[i]);
      return;
    }
    edge_list edges;
    edges.reserve(n_inputs);
    for (size_t i = 0; i < n_inputs; ++i)
      edges.push_back(inputs[i]->defined() ? torch::autograd::impl::gradient_edge(*inputs[i]) : Edge());
    std::shared_ptr<RustNode> node(
        new RustNode(std::string(name, name_len), closure, backward, drop, std::move(edges)), deleteNode);
    node->saved.reserve(n_saved + n_saved_outputs);
    for (size_t i = 0; i < n_saved; ++i) node->saved.push_back(snapshot(*saved[i]));
    for (size_t i = 0; i < n_outputs; ++i) {
      Tensor& o = *outputs[i];
      if (!o.defined() || contains(non_differentiable, n_non_differentiable, i) ||
          !torch::autograd::isDifferentiableType(o.scalar_type())) {
        if (o.defined() && o.requires_grad()) o = detached_alias(o);
        node->add_input_metadata(Node::undefined_input());
        continue;
      }
      o = own_handle(o);
      torch::autograd::set_history(o, node);
    }
    for (size_t i = 0; i < n_saved_outputs; ++i) node->saved.push_back(snapshot(*outputs[saved_outputs[i]]));
  });
}

void thruway_bump_version(const Tensor* t) {
  if (!t->is_inference()) t->unsafeGetTensorImpl()->bump_version();
}

// The rest: what tch lacks. `device` is the CUDA index, or -1 for the CPU.

int thruway_clear_grad(const Tensor* t) {
  return guarded([&] { t->mutable_grad().reset(); });
}

int thruway_generator_state(int device, Tensor** out) {
  return guarded([&] {
    at::Generator generator = at::globalContext().defaultGenerator(device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    *out = new Tensor(generator.get_state());
  });
}

int thruway_set_generator_state(int device, const Tensor* state) {
  return guarded([&] {
    at::Generator generator = at::globalContext().defaultGenerator(device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

int thruway_seed_generator(int device, int64_t seed) {
  return guarded([&] {
    at::Generator generator = at::globalContext().defaultGenerator(device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(static_cast<uint64_t>(seed));
  });
}

int thruway_set_deterministic(bool on) {
  return guarded([&] {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
    // On by default, and a pass of NaN over every fresh tensor: a debugging aid, not determinism.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

// libtorch's description of itself as it was built; valid for the life of the process.
const char* thruway_show_config() {
  static const std::string config = at::show_config();
  return config.c_str();
}

int thruway_memory_peak(int device, uint64_t* bytes) {
  return guarded([&] {
    const auto stats = at::accelerator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    *bytes = static_cast<uint64_t>(stats.allocated_bytes[0].peak);
  });
}

int thruway_reset_memory_peak(int device) {
  return guarded([&] { at::accelerator::resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

int thruway_current_stream(int device, uint64_t* handle) {
  return guarded([&] {
    const auto stream = at::accelerator::getCurrentStream(static_cast<c10::DeviceIndex>(device));
    *handle = reinterpret_cast<uint64_t>(stream.native_handle());
  });
}

}  // extern "C"
