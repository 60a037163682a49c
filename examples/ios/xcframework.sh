#!/bin/sh
# Builds edgellm.xcframework on a Mac: a framework for devices, one for the simulator. Not run where edgellm is developed.
set -eu
cd "$(dirname "$0")/../.."
command -v xcodebuild >/dev/null || { echo "this needs a Mac with Xcode: xcodebuild is not here" >&2; exit 2; }
out=build/ios
rm -rf "$out/edgellm.xcframework"
arguments=""
for sdk in iphoneos iphonesimulator; do
  cmake -S . -B "$out/$sdk" -G Ninja -DCMAKE_SYSTEM_NAME=iOS -DCMAKE_OSX_SYSROOT=$sdk -DCMAKE_OSX_ARCHITECTURES=arm64 \
    -DCMAKE_OSX_DEPLOYMENT_TARGET=16.4 -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDGELLM_IN_SOURCE=OFF
  cmake --build "$out/$sdk" --target edgellm
  framework="$out/$sdk/edgellm.framework"
  rm -rf "$framework"
  mkdir -p "$framework/Headers" "$framework/Modules"
  cp "$out/$sdk/lib/libedgellm.dylib" "$framework/edgellm"
  install_name_tool -id @rpath/edgellm.framework/edgellm "$framework/edgellm"
  dsymutil "$framework/edgellm" -o "$out/$sdk/edgellm.framework.dSYM"
  strip -x "$framework/edgellm"
  cp include/edgellm.h "$framework/Headers/"
  cp examples/ios/module.modulemap "$framework/Modules/"
  sed "s/@PLATFORM@/$([ $sdk = iphoneos ] && echo iPhoneOS || echo iPhoneSimulator)/" examples/ios/Info.plist.in \
    >"$framework/Info.plist"
  codesign --force --sign - "$framework"
  arguments="$arguments -framework $framework -debug-symbols $PWD/$out/$sdk/edgellm.framework.dSYM"
done
# shellcheck disable=SC2086 # a list of options
xcodebuild -create-xcframework $arguments -output "$out/edgellm.xcframework"
echo "$out/edgellm.xcframework"
