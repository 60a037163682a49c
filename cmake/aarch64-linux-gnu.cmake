# aarch64-linux-gnu.cmake - toolchain file: build for 64-bit ARM with Debian's cross compilers, run tests under qemu.
#   cmake -S . -B build/arm64 -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DEDGELLM_DEVELOPER=ON
# QEMU_CPU=cortex-a53 in the environment picks the emulated CPU (qemu-user reads it); `make test-arm` goes through some.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# Headers and libraries come from the target's folder, programs (Python, ccache) from this machine.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

find_program(EL_QEMU_ARM64 NAMES qemu-aarch64-static qemu-aarch64)
if(EL_QEMU_ARM64)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${EL_QEMU_ARM64};-L;/usr/aarch64-linux-gnu")
endif()
