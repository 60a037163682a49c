plugins { id("com.android.application") version "8.7.3" }

android {
    namespace = "org.edgellm.chat"
    compileSdk = 35
    ndkVersion = "28.0.13004108" // 16 KiB pages without a flag
    defaultConfig {
        applicationId = "org.edgellm.chat"
        minSdk = 24
        targetSdk = 35
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += "arm64-v8a" }
        externalNativeBuild { cmake { arguments += listOf("-DANDROID_STL=c++_static", "-DCMAKE_BUILD_TYPE=Release") } }
    }
    externalNativeBuild { cmake { path = file("src/main/cpp/CMakeLists.txt") } }
}
