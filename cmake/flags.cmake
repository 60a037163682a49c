# flags.cmake - how everything is compiled and linked.
#   el_flags               for all our code and ggml
#   el_warnings            for our code only
#   el_link_library(T [OPEN] pattern...)   links T as one closed file that exports only the named symbols

include(CheckLinkerFlag)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

# No build path in the files: __FILE__ is relative to the checkout, also when ccache has made the compiler's argument
# relative to the build folder.
file(RELATIVE_PATH up "${PROJECT_BINARY_DIR}" "${PROJECT_SOURCE_DIR}") # ends in a slash or not
string(REGEX REPLACE "([^/])$" "\\1/" up "${up}")
add_library(el_flags INTERFACE)
# One rounding per operation, on every compiler: gcc contracts a*b+c by default, clang within an expression. Where a
# fused operation is wanted, the code says so.
target_compile_options(el_flags INTERFACE -ffp-contract=off -ffunction-sections -fdata-sections
                       "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=" "-ffile-prefix-map=${PROJECT_BINARY_DIR}/="
                       "-ffile-prefix-map=${up}=")
target_compile_definitions(el_flags INTERFACE $<$<PLATFORM_ID:Linux,Android>:_GNU_SOURCE>)

add_library(el_warnings INTERFACE)
target_compile_options(el_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes
                       -Wmissing-prototypes)
if(EDGELLM_DEVELOPER)
  # Two warnings stay warnings: what gcc takes for possibly uninitialized or truncated changes with its version, the
  # optimization and the inlining. Under sanitizers all do: it also warns of loops that it could not unroll.
  target_compile_options(el_warnings INTERFACE -Werror
                         $<$<C_COMPILER_ID:GNU>:-Wno-error=maybe-uninitialized;-Wno-error=format-truncation>)
  if(EDGELLM_SANITIZE)
    target_compile_options(el_warnings INTERFACE -Wno-error)
  endif()
endif()

# ---- sanitizers and fuzzing: for everything, because a half-instrumented program reports nonsense --------------------
set(EL_SANITIZE_SUMMARY none)
if(EDGELLM_SANITIZE)
  if(NOT EDGELLM_SANITIZE MATCHES "^(address|undefined|thread|address,undefined)$")
    message(FATAL_ERROR "EDGELLM_SANITIZE=${EDGELLM_SANITIZE} is none of: address, undefined, address,undefined, thread. Run\n"
                        "  ${EL_CONFIGURE_COMMAND} -DEDGELLM_SANITIZE=address,undefined")
  endif()
  set(EL_SANITIZE_SUMMARY "${EDGELLM_SANITIZE}")
  add_compile_options(-fsanitize=${EDGELLM_SANITIZE} -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${EDGELLM_SANITIZE})
  if(EDGELLM_SANITIZE MATCHES "undefined")
    # A finding ends the test, so that it cannot be overlooked.
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()
if(EDGELLM_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "EDGELLM_FUZZ needs clang; this is ${CMAKE_C_COMPILER_ID}. Run\n"
                        "  CC=clang CXX=clang++ cmake -S ${CMAKE_SOURCE_DIR} -B build/fuzz -DEDGELLM_FUZZ=ON "
                        "-DEDGELLM_SANITIZE=address,undefined")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link -g)
endif()

# ---- linking -----------------------------------------------------------------------------------------------------------
# A library of ours is one closed file: exports named, unused sections dropped, C++ runtime inside, no build path, no
# soname with a version (wheels hold no symlinks), never unloaded (a linker that adds no crtbeginS.o, like zig's, leaves
# C++ destructors behind that would run on unmapped code after dlclose: ziglang/zig 17908).
# OPEN: what is undefined is found in the program that loads it, as a Python module's functions are.
function(el_link_library target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "OPEN" "" "")
  set(exported ${arg_UNPARSED_ARGUMENTS})
  if(APPLE)
    set(flags -Wl,-dead_strip)
    foreach(pattern IN LISTS exported)
      list(APPEND flags "-Wl,-exported_symbol,_${pattern}")
    endforeach()
    # -S: zig's own libc++ has debugging entries, with the folders it was compiled in.
    target_link_options(${target} PRIVATE ${flags} $<$<CONFIG:Release>:-Wl,-x,-S>)
  elseif(WIN32)
    target_link_options(${target} PRIVATE -static -Wl,--gc-sections $<$<CONFIG:Release>:-s>)
  else()
    set(script "${PROJECT_BINARY_DIR}/${target}.map")
    list(JOIN exported "; " patterns)
    file(CONFIGURE OUTPUT "${script}" CONTENT "{ global: ${patterns}; local: *; };\n")
    target_link_options(${target} PRIVATE "-Wl,--version-script=${script}" -Wl,--gc-sections -Wl,--exclude-libs,ALL
                        -Wl,-z,nodelete -Wl,-z,relro,-z,now $<$<CONFIG:Release>:-s>)
    if(NOT EDGELLM_SANITIZE) # sanitizers bring their own runtime, which stays undefined here
      check_linker_flag(CXX "-static-libstdc++" EL_HAVE_STATIC_LIBSTDCXX)
      if(EL_HAVE_STATIC_LIBSTDCXX)
        target_link_options(${target} PRIVATE -static-libgcc -static-libstdc++)
      endif()
      if(NOT arg_OPEN)
        target_link_options(${target} PRIVATE -Wl,-z,defs) # a missing function fails here, not on the user's machine
      endif()
    endif()
    set_target_properties(${target} PROPERTIES LINK_DEPENDS "${script}")
  endif()
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
endfunction()
