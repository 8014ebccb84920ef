# bash: redirections, here-documents, globs, subshells, process substitution, job control
echo one > f; echo two >> f; cat < f
cat <<END > here
expanded $((1 + 2))
  indented
END
cat here
cat <<< "here string" > hs; cat hs
exec 3<> f; read -u 3 line; echo "read $line"; echo THREE >&3; exec 3>&-; cat f
exec 4> out4 5>&4; echo a >&4; echo b >&5; exec 4>&- 5>&-; cat out4
{ echo to out; echo to err >&2; } > o 2> e; cat o e
{ echo both; echo errs >&2; } &> b; cat b
(cd / && pwd); pwd | sed 's/.*\///'
mkdir d && cd d && touch x y z && echo * && cd .. && echo d/*
shopt -s globstar dotglob nullglob; mkdir -p g/h/i; touch g/h/i/.hid g/one; printf '%s\n' **/*; echo none*
diff <(sort f) <(sort -r f | sort) && echo psub same
while read -r l; do echo "[$l]"; done < f
for i in 1 2 3; do echo $i; done > loop; cat loop | wc -l
set -C; echo clobber > f 2>/dev/null || echo noclobber; set +C; echo forced >| f; cat f
test -f f -a -r f && [ -d d ] && [[ -s f ]] && echo tests
[ f -nt hs ] && echo newer; [ f -ef ./f ] && echo same file
(echo background > bg) & wait; cat bg
x=$(cat f); echo "$x"; mapfile -t lines < here; echo "${#lines[@]}"
printf '%s\n' a b c > abc; exec 6< abc; read -u 6 p; (read -u 6 q; echo "child $q"); read -u 6 r; echo "$p $r"; exec 6<&-
trap 'echo trapped > trapfile' EXIT; cat nofile; echo "status $?"
source /dev/stdin <<< 'echo sourced'
echo 'echo "script $1"' > s.sh; . ./s.sh arg; bash s.sh other
type -t ls; command -v cat > /dev/null && echo found
cd d; pwd -P | sed 's/.*\///'; cd - > /dev/null; pushd d > /dev/null; popd > /dev/null
umask 077; > masked; stat -c %a masked
ulimit -n > /dev/null && coproc cat; echo co >&"${COPROC[1]}"; read -u "${COPROC[0]}" c; echo "$c"
mkdir cache; echo 1 > cache/f; rm -rf cache; mkdir cache; echo 2 > cache/f; cat cache/f; (rm -rf cache); mkdir cache; echo 3 > cache/g; cat cache/*
exec 5> log 6>&5; echo five >&5; (echo six >&6); echo configure: >> log; exec 5>&- 6>&-; cat log; : > log; test ! -s log && echo emptied
