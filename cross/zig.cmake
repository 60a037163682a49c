# zig.cmake - toolchain file of every target that zig builds. cross/build.py names the target:
#   EL_ZIG_TOOLS      folder with the programs clang, clang++, ar and ranlib, made for one target (cross/build.py)
#   EL_ZIG_SYSTEM     Linux, Darwin or Windows
#   EL_ZIG_PROCESSOR  aarch64, armv7l, armv6l, x86_64, arm64, AMD64, ARM64
# CMake runs this file again for each of its own checks, which see only the variables listed here.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EL_ZIG_TOOLS EL_ZIG_SYSTEM EL_ZIG_PROCESSOR)
set(CMAKE_TRY_COMPILE_CONFIGURATION Release) # without -O zig adds UBSan, whose functions are nowhere
if(EL_ZIG_SYSTEM STREQUAL "Linux")
  # Nothing is linked while configuring: zig would build a libc++ for programs, 36 s of a processor, that no wheel needs.
  set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
endif()

set(CMAKE_SYSTEM_NAME ${EL_ZIG_SYSTEM})
set(CMAKE_SYSTEM_PROCESSOR ${EL_ZIG_PROCESSOR})
set(CMAKE_C_COMPILER "${EL_ZIG_TOOLS}/clang")
set(CMAKE_CXX_COMPILER "${EL_ZIG_TOOLS}/clang++")
set(CMAKE_AR "${EL_ZIG_TOOLS}/ar" CACHE FILEPATH "" FORCE)
set(CMAKE_RANLIB "${EL_ZIG_TOOLS}/ranlib" CACHE FILEPATH "" FORCE)

# Programs (Python, ccache) come from this machine, nothing else does.
set(CMAKE_FIND_ROOT_PATH "${EL_ZIG_TOOLS}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

if(EL_ZIG_SYSTEM STREQUAL "Darwin")
  set(CMAKE_OSX_SYSROOT "" CACHE STRING "" FORCE)
  set(CMAKE_INSTALL_NAME_TOOL true CACHE FILEPATH "" FORCE) # asked for while configuring, never called: no build rpath
endif()
