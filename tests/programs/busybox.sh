# busybox (dynamic or static as installed): skipped pieces are printed alike in both places
# tree: none
set +e
if file -L "$(command -v busybox)" | grep -q 'statically linked'; then echo static; exit 0; fi
busybox sh -c 'echo hello > f; cat f; cp f g; mv g h; ls; ln -s f l; readlink l; mkdir -p d/e; touch d/e/x; find d | sort; rm -r d; ls; grep hello f; sed -i s/hello/bye/ f; cat f; tar cf a.tar f h; tar tf a.tar; wc -c f; sort f; awk "{print NR, \$0}" f; dd if=f of=k bs=1 count=2 2>/dev/null; cat k; md5sum f h; vi --help >/dev/null 2>&1; stat -c %s f; du -a f >/dev/null; truncate -s 3 f; cat f'
