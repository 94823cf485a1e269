//! Resource pools and the kubelet device plugin v1beta1.
