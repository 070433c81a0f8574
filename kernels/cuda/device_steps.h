// kernels/device_steps.h by the kernels of this folder, on the stream of a device.
#pragma once

#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/device_steps.h"

namespace lomu::cuda {

/// `device` outlives the result.
std::unique_ptr<DeviceSteps> make_device_steps(Device& device);

}  // namespace lomu::cuda
