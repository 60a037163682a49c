# compilers.cmake - enable C and C++, with a message that names the next command when there is no compiler.
# Also ccache, before the languages are enabled, because the launcher is fixed then.

include(CheckLanguage)
foreach(language C CXX)
  check_language(${language})
  if(NOT CMAKE_${language}_COMPILER)
    message(FATAL_ERROR "edgellm is compiled on installation and found no ${language} compiler. Run\n"
                        "  apt-get install build-essential        (Debian, Ubuntu, Raspberry Pi OS)\n"
                        "  dnf install gcc gcc-c++                (Fedora, RHEL)\n"
                        "  apk add build-base                     (Alpine)\n"
                        "  xcode-select --install                 (macOS)\n"
                        "or set CC and CXX to the compilers to use.")
  endif()
endforeach()

# Paths below the checkout are made relative and the working directory is left out of the key, so that two build
# folders of one checkout (and pip's) share their results.
find_program(EL_CCACHE ccache)
set(EL_CCACHE_SUMMARY "not found")
if(EL_CCACHE)
  set(EL_CCACHE_SUMMARY "${EL_CCACHE}")
  foreach(language C CXX)
    if(NOT DEFINED CMAKE_${language}_COMPILER_LAUNCHER)
      set(CMAKE_${language}_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}"
          CCACHE_NOHASHDIR=1 "${EL_CCACHE}")
    endif()
  endforeach()
endif()

enable_language(C)
enable_language(CXX)
foreach(language C CXX)
  if(NOT CMAKE_${language}_COMPILER_ID MATCHES "^(GNU|Clang|AppleClang)$")
    message(FATAL_ERROR "edgellm is compiled with gcc or clang; this is ${CMAKE_${language}_COMPILER_ID} "
                        "(${CMAKE_${language}_COMPILER}). Run\n  CC=clang CXX=clang++ ${EL_CONFIGURE_COMMAND}")
  endif()
  if(CMAKE_${language}_COMPILER_ID STREQUAL "GNU" AND CMAKE_${language}_COMPILER_VERSION VERSION_LESS 9)
    message(FATAL_ERROR "edgellm needs gcc 9 or newer; ${CMAKE_${language}_COMPILER} is "
                        "${CMAKE_${language}_COMPILER_VERSION}. Run\n  CC=clang CXX=clang++ ${EL_CONFIGURE_COMMAND}")
  endif()
endforeach()
