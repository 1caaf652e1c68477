// Ctrl-C and progress while the GIL is released.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "../threads.h"

namespace longspan {

namespace py = pybind11;

inline bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing();
#else
  return _Py_IsFinalizing();
#endif
}

// Gives the GIL up. A thread that finds the interpreter gone when it wants the GIL back sleeps for ever, as Python 3.14
// does: older versions end it by unwinding its stack, which C++ destructors do not survive.
class WithoutGil {
 public:
  ~WithoutGil() {
    while (finalizing()) std::this_thread::sleep_for(std::chrono::seconds(1));
    PyEval_RestoreThread(state_);
  }

 private:
  PyThreadState* state_ = PyEval_SaveThread();
};

// Calls back into Python at most ten times a second, and looks for Ctrl-C.
class PythonPoll {
 public:
  explicit PythonPoll(py::object callback) : callback_(std::move(callback)) {}

  static bool ask(void* self, long tokens) { return static_cast<PythonPoll*>(self)->ask_now(tokens); }

  void raise_pending() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  bool ask_now(long tokens) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(100)) return false;
    last_ = now;
    if (finalizing()) return true;
    const unsigned long kernels = float_control();
    set_float_control(host_);  // what runs now is the caller's own code
    const bool stop = ask_python(tokens);
    set_float_control(kernels);
    return stop;
  }

  bool ask_python(long tokens) {
    py::gil_scoped_acquire gil;
    try {
      // In this order: a callback that was never called tells that nothing but the batch can have been refused.
      if (!callback_.is_none()) callback_(tokens);
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      return false;
    } catch (...) {
      error_ = std::current_exception();
      return true;
    }
  }

  py::object callback_;
  const unsigned long host_ = float_control();
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::exception_ptr error_;
};

}  // namespace longspan
